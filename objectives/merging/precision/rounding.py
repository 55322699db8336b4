"""Round weights to few bits, to the nearest, as compressed-tensors defines numbers and scales."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .formats import Format

# Elements that are rounded at once: few enough for a CPU's cache.
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Quantized:
    """A matrix in few bits.

    Args:
        values: A `rows x width`-dim tensor of int8 (four bits too) or float8_e4m3fn.
        scales: A `rows x groups`-dim tensor in the precision of the model.
    """

    values: Tensor
    scales: Tensor

    def dequantized(self) -> Tensor:
        """Return the numbers that it stands for, in the precision of its scales.

        A product of eight bits and a scale is exact in float32: it is rounded once, as it is
        where two numbers of bfloat16 are multiplied.
        """
        rows, groups = self.scales.shape
        values = self.values.float().view(rows, groups, -1)
        found = (values * self.scales.float()[:, :, None]).to(self.scales.dtype)
        return found.view(rows, -1)


def quantized(weight: Tensor, form: Format) -> Quantized:
    """Return a matrix in few bits, each number rounded to the nearest.

    A scale is the largest weight of its group over half of the format's range (7.5 of four bits,
    so that -8 is used, and what would be 7.5 becomes 7). It is rounded to the matrix's own
    precision before weights are divided by it, as it is when it is stored. The library divides in
    that precision too; here it is float32, which rounds once.

    Args:
        weight: `rows x width`-dim, finite, in the precision of the model.
        form: The format.
    """
    rows, width = weight.shape
    grouped = weight.float().reshape(rows, -1, form.group_size(width))
    # A tensor, because a GPU multiplies by the reciprocal of a number, which rounds otherwise.
    scales = (grouped.abs().amax(dim=2) / grouped.new_tensor(form.reach)).to(weight.dtype)
    # A group of zeros has any scale but 0.
    scales.masked_fill_(scales == 0, torch.finfo(weight.dtype).eps)
    scaled = (grouped / scales.float()[:, :, None]).clamp_(form.low, form.high)
    if form.kind == "float":
        values = scaled.to(torch.float8_e4m3fn)
    else:
        values = scaled.round_().to(torch.int8)
    return Quantized(values.view(rows, width), scales)


def round_weight(weight: Tensor, form: Format) -> None:
    """Replace a matrix by what it is once it was stored in few bits and read again, in place.

    Args:
        weight: `rows x width`-dim, contiguous, in the precision of the model.
        form: The format.
    """
    rows_at_once = max(1, _CHUNK // weight.shape[1])
    for part in weight.split(rows_at_once):
        part.copy_(quantized(part, form).dequantized())
