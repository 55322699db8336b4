"""Tensors that are merged: read in parts, whole or one of several equal pieces."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Axis = Literal[0, 1]


class Source(Protocol):
    """A tensor that can be read in parts: resident, or in a file."""

    @property
    def shape(self) -> torch.Size:
        """Its shape."""

    def numel(self) -> int:
        """Number of elements."""

    def read(self, start: int, stop: int) -> Tensor:
        """Return elements `start` to `stop` of the flattened tensor as float32."""

    def stored(self, start: int, stop: int) -> Tensor:
        """Return the same elements in the precision that the study loads models in."""


@dataclass(frozen=True)
class Piece:
    """One of the equal parts of a matrix, read as a tensor of its own.

    Args:
        source: The matrix, or a vector cut along axis 0.
        axis: 0 for rows, 1 for columns.
        index: Of the part.
        count: Number of parts.
    """

    source: Source
    axis: Axis
    index: int
    count: int

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        shape = list(self.source.shape)
        shape[self.axis] //= self.count
        return torch.Size(shape)

    def numel(self) -> int:
        """Number of elements."""
        return self.shape.numel()

    def read(self, start: int, stop: int) -> Tensor:
        """Return elements `start` to `stop` of the flattened part as float32."""
        return self.stored(start, stop).float()

    def stored(self, start: int, stop: int) -> Tensor:
        """Return the same elements as the matrix stores them."""
        if self.axis == 0:
            first = self.index * self.numel()
            return self.source.stored(first + start, first + stop)
        whole, width = self.source.shape[1], self.shape[1]
        top, bottom = start // width, -(-stop // width)
        rows = self.source.stored(top * whole, bottom * whole).view(-1, whole)
        columns = rows[:, self.index * width : (self.index + 1) * width].reshape(-1)
        return columns[start - top * width : stop - top * width]


@dataclass(frozen=True)
class Cut:
    """The weights of a tensor whose equal pieces have weights of their own.

    Args:
        axis: Along which it is cut: 0 for rows, 1 for columns.
        weights: Of each piece, one number per expert.
    """

    axis: Axis
    weights: tuple[tuple[float, ...], ...]
