"""Whether two checkpoints hold the same model."""

from pathlib import Path

from .lora import LoraCheckpoint
from .reader import Checkpoint
from .tensors.table import same


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
    return names == sorted(expert.layout) and all(
        same(base.tensor(n), expert.tensor(n)) for n in names
    )


def _has_holes(path: Path) -> bool:
    status = path.stat()
    return status.st_blocks * 512 < status.st_size // 2
