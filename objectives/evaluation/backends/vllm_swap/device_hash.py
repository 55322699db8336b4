"""Hashes of tensors, computed where the tensors are: no weight is read back from a GPU."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

# Words of 32 bits in a row; every row gives one number.
_ROW = 1 << 16
# Words multiplied at once: products take 128 MiB.
_BLOCK = 1 << 24


def hash_tensors(named: Iterable[tuple[str, Tensor]]) -> dict[str, str]:
    """Return each tensor's dtype, shape and a hash of its bytes, under its name.

    It finds faults, not attacks: on an accelerator the keys are fixed and a row gives 64 bits.

    Args:
        named: Tensors on any devices, contiguous or not.
    """
    on_cpu: dict[str, str] = {}
    heads: list[tuple[str, str, int]] = []
    sums: list[Tensor] = []
    for name, tensor in named:
        head = f"{tensor.dtype} {tuple(tensor.shape)}"
        if tensor.device.type == "cpu":
            on_cpu[name] = f"{head} {_digest(_bytes(tensor).numpy())}"
            continue
        sums.append(row_sums(tensor))
        heads.append((name, head, sums[-1].numel()))
    numbers = iter(torch.cat(sums).tolist() if sums else [])  # the one transfer
    taken = {
        name: f"{head} {_digest(repr([next(numbers) for _ in range(n)]).encode())}"
        for name, head, n in heads
    }
    return on_cpu | taken


def row_sums(tensor: Tensor) -> Tensor:
    """Return one number of 64 bits for every 2^18 bytes, on the tensor's device.

    Multilinear hashing (Carter and Wegman 1979): a row of words `x` gives `sum_i k_i x_i` modulo
    2^64 with random odd keys `k_i`. Rows that differ in one word never give the same number,
    others with a probability of about 2^-32.
    """
    words = _words(tensor)
    key = _key(words.device)
    parts = [(_rows(part) * key).sum(1) for part in words.split(_BLOCK) if part.numel()]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=words.device)


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _words(tensor: Tensor) -> Tensor:
    """Return the tensor's bytes as words of 32 bits, the last one filled with zeros."""
    flat = _bytes(tensor)
    if flat.numel() % 4:
        flat = functional.pad(flat, (0, -flat.numel() % 4))
    elif flat.storage_offset() % 4:
        flat = flat.clone()
    return flat.view(torch.int32)


def _rows(words: Tensor) -> Tensor:
    """Return words as a matrix of whole rows."""
    return functional.pad(words, (0, -words.numel() % _ROW)).view(-1, _ROW)


@lru_cache(maxsize=16)
def _key(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    limits = torch.iinfo(torch.int64)
    key = torch.randint(limits.min, limits.max, (_ROW,), generator=generator)
    return (key | 1).to(device)
