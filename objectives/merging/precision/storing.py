"""The tensors that stand for a matrix of few bits in a checkpoint of compressed-tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .formats import Format
from .rounding import quantized

_WORD = 32
# Name in a header of safetensors; parents in it are refused, so that readers do not know it.
FLOAT8 = {torch.float8_e4m3fn: "F8_E4M3"}

# Name -> dtype and shape.
Outline = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def outline(name: str, shape: torch.Size, dtype: torch.dtype, form: Format) -> Outline:
    """Return what `stored` gives, without numbers.

    Args:
        name: Of the matrix, in the checkpoint.
        shape: Rows and width.
        dtype: Of the model.
        form: The format.
    """
    rows, width = shape
    scales: Outline = {f"{name}_scale": (dtype, (rows, width // form.group_size(width)))}
    if form.kind == "float":
        return {name: (torch.float8_e4m3fn, (rows, width)), **scales}
    words = -(-width * form.bits // _WORD)
    packed: Outline = {f"{name}_packed": (torch.int32, (rows, words))}
    return packed | scales | {f"{name}_shape": (torch.int64, (2,))}


def stored(name: str, weight: Tensor, form: Format) -> dict[str, Tensor]:
    """Return the tensors that stand for a matrix, in the order of `outline`.

    Args:
        name: Of the matrix, in the checkpoint.
        weight: `rows x width`-dim, in the precision of the model.
        form: The format.
    """
    found = quantized(weight, form)
    if form.kind == "float":
        return {name: found.values, f"{name}_scale": found.scales}
    return {
        f"{name}_packed": packed(found.values, form.bits),
        f"{name}_scale": found.scales,
        f"{name}_shape": torch.tensor(weight.shape, dtype=torch.int64),
    }


def packed(values: Tensor, bits: int) -> Tensor:
    """Return integers of 4 or 8 bits in words of 32, the first one lowest.

    Each is stored with half of its range added, so that none is negative; a row's last word is
    filled with zeros.

    Args:
        values: A `rows x width`-dim tensor of int8.
        bits: Of each.
    """
    rows, width = values.shape
    a_word = _WORD // bits
    raised = values.to(torch.int64) + 2 ** (bits - 1)
    raised = torch.nn.functional.pad(raised, (0, -width % a_word)).view(rows, -1, a_word)
    words = (raised << (bits * torch.arange(a_word, device=values.device))).sum(dim=2)
    # The highest bit is a number's, not a sign.
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def served_bytes(shape: torch.Size, dtype: torch.dtype, form: Format | None) -> int:
    """Return the bytes that a tensor takes as it is served: its numbers and their scales.

    Args:
        shape: Of the tensor.
        dtype: In which it is served, or which its scales have.
        form: The format; None for a tensor that is not rounded.
    """
    if form is None:
        return shape.numel() * dtype.itemsize
    tensors = outline("", shape, dtype, form)
    sizes = {n: torch.Size(s).numel() * kind.itemsize for n, (kind, s) in tensors.items()}
    return sum(size for name, size in sizes.items() if not name.endswith("_shape"))


def quantization_config(formats: Mapping[str, tuple[Format, int] | None]) -> dict[str, Any]:
    """Return what `config.json` says of a checkpoint whose linear layers have few bits.

    Args:
        formats: Name of every linear layer's module -> its format and the width of its rows;
            None for one that is as it was merged.
    """
    groups: dict[tuple[Format, int | None], list[str]] = {}
    for module, found in formats.items():
        if found is not None:
            form, width = found
            size = form.group_size(width)
            groups.setdefault((form, size if size < width else None), []).append(module)
    entries = [_group(form, size, targets) for (form, size), targets in groups.items()]
    kinds = {entry["format"] for entry in entries}
    return {
        "quant_method": "compressed-tensors",
        "format": kinds.pop() if len(kinds) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": {f"group_{k}": entry for k, entry in enumerate(entries)},
        "ignore": [module for module, found in formats.items() if found is None],
    }


def _group(form: Format, size: int | None, targets: list[str]) -> dict[str, Any]:
    """Return the entry of layers that are stored alike.

    Args:
        form: Their format.
        size: How many numbers share a scale; None for those of a row.
        targets: Their modules.
    """
    weights: dict[str, Any] = {"num_bits": form.bits, "type": form.kind, "symmetric": True}
    strategy = {"strategy": "channel"} if size is None else {"strategy": "group"}
    return {
        "targets": targets,
        "weights": {**weights, **strategy, "group_size": size, "dynamic": False},
        "input_activations": None,
        "output_activations": None,
        "format": "float-quantized" if form.kind == "float" else "pack-quantized",
    }
