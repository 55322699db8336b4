"""Experts whose embeddings have more rows than the base's, or fewer: padding is cut, or filled.

Vocabularies are padded to what a trainer's hardware liked. A row that no token has says nothing:
the merge has the base's number of rows.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..reader import Checkpoint
from ..tensor_files import FileTensor
from .table import embeddings_name, is_head

_HEAD_BIAS = re.compile(r"(?:^|\.)(?:lm_head|embed_out)\.bias$")


@dataclass(frozen=True)
class GrownTensor(FileTensor):
    """A tensor of a file with more rows than it has there.

    Args:
        own: Its first rows.
        rest: The base's tensor, whose last rows follow.
    """

    own: FileTensor | None = None
    rest: FileTensor | None = None

    def _bytes(self, start: int, stop: int) -> Tensor:
        assert self.own is not None and self.rest is not None
        end = self.own.numel()
        first = self.own._bytes(min(start, end), min(stop, end))
        last = self.rest._bytes(max(start, end), max(stop, end))
        return torch.cat([first.to(self.dtype), last.to(self.dtype)])


class PaddedCheckpoint(Checkpoint):
    """An expert read with the base's number of embedding rows.

    Rows beyond the base's are cut; rows that the expert lacks are the base's.

    Args:
        directory: The expert's.
        base: Whose number of rows counts.
    """

    def __init__(self, directory: Path, base: Checkpoint) -> None:
        super().__init__(directory)
        self._base = base

    @cached_property
    def fitted(self) -> dict[str, FileTensor]:
        """The tensors that have another number of rows in the file, by name."""
        found = {name: self._fit(name) for name in self.layout if _of_tokens(name, self)}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    @property
    def changed(self) -> list[str]:
        """Names of the tensors that are not as they are in the file."""
        return sorted(self.fitted)

    def tensor(self, name: str) -> FileTensor:
        """Return one tensor, with the base's number of rows."""
        return self.fitted.get(name) or super().tensor(name)

    @property
    def own_rows(self) -> int:
        """Number of embedding rows in the file."""
        return min(super(PaddedCheckpoint, self).tensor(name).shape[0] for name in self.fitted)

    @property
    def rows(self) -> int:
        """Number of the base's embedding rows, which are read."""
        return next(iter(self.fitted.values())).shape[0]

    def _fit(self, name: str) -> FileTensor | None:
        own, origin = super().tensor(name), _counterpart(name, self._base)
        if origin is None or own.shape[1:] != origin.shape[1:] or own.shape == origin.shape:
            return None
        if own.shape[0] > origin.shape[0]:
            return replace(own, shape=origin.shape)
        dtype = torch.promote_types(own.dtype, origin.dtype)
        return GrownTensor(own.file, own.offset, origin.shape, dtype, None, own, origin)


def _of_tokens(name: str, checkpoint: Checkpoint) -> bool:
    """Whether a tensor has a row for each token."""
    embeddings = embeddings_name(checkpoint.layout)
    return name == embeddings or is_head(name) or _HEAD_BIAS.search(name) is not None


def _counterpart(name: str, base: Checkpoint) -> FileTensor | None:
    """Return the base's tensor: for a copy that it does not store, its embeddings."""
    if name in base.layout:
        return base.tensor(name)
    own = embeddings_name(base.layout)
    return base.tensor(own) if own is not None and is_head(name) else None


def fitted(expert: Checkpoint, base: Checkpoint) -> Checkpoint:
    """Return an expert with the base's number of embedding rows; itself, where it has them."""
    padded = PaddedCheckpoint(expert.directory, base)
    padded._parsed = expert._parsed  # headers are read once
    return padded if padded.fitted else expert
