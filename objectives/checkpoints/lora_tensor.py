"""A weight with an adapter's product added: the same numbers, however much is read at once."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from .tensor_files import FileTensor

# Elements multiplied at once, 256 KB in float32: measured best of 2**15 to 2**18.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class LoraTensor:
    """A weight plus `scaling * B A`, computed as it is read.

    A bias is a matrix of one column.

    Args:
        origin: The base's weight, `out x in`.
        a: `r x in`, float32.
        b: `out x r`, float32.
        scaling: `alpha / r`, or `alpha / sqrt(r)` for rank-stabilised adapters.
        cast: As of a file's tensor.
    """

    origin: FileTensor
    a: Tensor
    b: Tensor
    scaling: float
    cast: torch.dtype | None = None

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        return self.origin.shape

    @property
    def dtype(self) -> torch.dtype:
        """As the base stores it."""
        return self.origin.dtype

    def numel(self) -> int:
        """Number of elements."""
        return self.origin.numel()

    def stored(self, start: int, stop: int) -> Tensor:
        """Return a part, added in float32 and rounded once to the base's precision, then cast."""
        own = self.origin.read(start, stop)
        merged = torch.empty(stop - start, dtype=self.dtype)
        step = self._n_rows * self.a.shape[1]
        for k in range(start // step, -(-stop // step)):
            first, last = max(start, k * step), min(stop, (k + 1) * step)
            delta = self._product(k)[first - k * step : last - k * step]
            part = slice(first - start, last - start)
            merged[part] = own[part] + self.scaling * delta
        return merged if self.cast is None else merged.to(self.cast)

    @property
    def _n_rows(self) -> int:
        """Number of rows that are multiplied at once; never one, whose kernel is another."""
        return max(2, _BLOCK // self.a.shape[1])

    def _product(self, k: int) -> Tensor:
        """Return block `k` of the product, flat; the last one is filled up with zeros.

        How a product is rounded depends on the shapes that are multiplied. Blocks of one shape
        make a tensor that is read whole equal to one that is read in parts.
        """
        rows = self.b[k * self._n_rows : (k + 1) * self._n_rows]
        return (pad(rows, (0, 0, 0, self._n_rows - len(rows))) @ self.a).view(-1)

    def read(self, start: int, stop: int) -> Tensor:
        """Return a part as float32."""
        return self.stored(start, stop).float()

    def load(self) -> Tensor:
        """Return the whole tensor."""
        return self.stored(0, self.numel()).view(self.shape)


def with_cast(source: FileTensor | LoraTensor, dtype: torch.dtype) -> FileTensor | LoraTensor:
    """Return the same tensor, cast to another precision when it is read."""
    return replace(source, cast=dtype)
