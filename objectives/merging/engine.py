"""Merge one tensor, exactly the same way for every sink.

The candidate that was measured in place and the checkpoint that is exported must agree bit for
bit, so both go through `merge_tensor`: inputs cast to the study's dtype, float32 arithmetic over
chunks of one fixed size, one rounding at the end.
"""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import LayoutError
from .operators import Operator

# 2**17 elements are 0.5 MB in float32: base, expert and result stay in the second-level cache.
_CHUNK = 1 << 17


def merge_tensor(
    operator: Operator,
    base: Tensor,
    experts: Sequence[Tensor],
    weights: Sequence[float],
    out: Tensor,
) -> None:
    """Write the merge of one tensor into `out`, in place.

    Args:
        operator: The formula.
        base: A tensor of any shape and floating dtype.
        experts: Its counterparts, same shape and dtype.
        weights: One number an expert.
        out: Receives the result; same shape and dtype, contiguous, no alias of an input.
    """
    if all(weight == 0.0 for weight in weights):
        out.copy_(base)  # no arithmetic, so that not-a-number payloads and signed zeros survive
        return
    if not operator.elementwise:
        out.copy_(operator.combine(base.float(), [e.float() for e in experts], weights))
        return
    flat_base, flat_out = base.reshape(-1), out.view(-1)
    flat_experts = [expert.reshape(-1) for expert in experts]
    for start in range(0, flat_base.numel(), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        inputs = [expert[chunk].float() for expert in flat_experts]
        flat_out[chunk] = operator.combine(flat_base[chunk].float(), inputs, weights)


def check_same_tensor(name: str, base: Tensor, expert: Tensor) -> None:
    """Refuse to merge two tensors of different shapes.

    Raises:
        LayoutError: If the shapes differ.
    """
    if base.shape != expert.shape:
        raise LayoutError(
            f"Tensors must have one shape in all models, but {name!r} is {tuple(base.shape)} in "
            f"the base and {tuple(expert.shape)} in an expert."
        )


def checksum(tensors: Sequence[tuple[str, Tensor]]) -> str:
    """Return a SHA-256 over names, dtypes, shapes and bytes, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().cpu().view(-1).view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()
