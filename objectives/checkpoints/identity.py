"""Whether two checkpoints hold the same model."""

import filecmp
from collections.abc import Sequence
from pathlib import Path

from .lora import LoraCheckpoint
from .reader import Checkpoint
from .tensors.table import same


def is_same_model(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two models' tensors are the same bit for bit; reading ends at a difference.

    Files with holes, which stand for models that were not fetched, are not compared. Adapters are
    the same if their files are.
    """
    if one.paths == other.paths:
        return True
    if any(map(_has_holes, [*one.paths, *other.paths])):
        return False
    if isinstance(one, LoraCheckpoint) or isinstance(other, LoraCheckpoint):
        return _same_files(one.paths, other.paths)
    names = sorted(one.layout)
    return names == sorted(other.layout) and all(
        same(one.tensor(n), other.tensor(n)) for n in names
    )


def _same_files(some: Sequence[Path], others: Sequence[Path]) -> bool:
    return len(some) == len(others) and all(
        one == other or filecmp.cmp(one, other, shallow=False)
        for one, other in zip(some, others, strict=True)
    )


def _has_holes(path: Path) -> bool:
    status = path.stat()
    return status.st_blocks * 512 < status.st_size // 2
