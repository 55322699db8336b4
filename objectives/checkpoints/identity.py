"""Whether two checkpoints hold the same model."""

from pathlib import Path

import torch

from .lora import LoraCheckpoint
from .reader import Checkpoint

_CHUNK = 1 << 22


def is_same_model(base: Checkpoint, expert: Checkpoint) -> bool:
    """Whether an expert's tensors are the base's bit for bit; reading ends at a difference.

    Files with holes, which stand for models that were not fetched, are not compared.
    """
    if isinstance(expert, LoraCheckpoint):
        return False
    if base.directory.resolve() == expert.directory.resolve():
        return True
    if any(map(_has_holes, [*base.paths, *expert.paths])):
        return False
    names = sorted(base.layout)
    return names == sorted(expert.layout) and all(_is_equal(base, expert, n) for n in names)


def _is_equal(base: Checkpoint, expert: Checkpoint, name: str) -> bool:
    ours, theirs = base.tensor(name), expert.tensor(name)
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return False
    n = ours.numel()
    parts = ((start, min(start + _CHUNK, n)) for start in range(0, n, _CHUNK))
    return all(torch.equal(ours.stored(*part), theirs.stored(*part)) for part in parts)


def _has_holes(path: Path) -> bool:
    status = path.stat()
    return status.st_blocks * 512 < status.st_size // 2
