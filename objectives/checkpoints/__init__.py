"""Models as they lie on disk: found, read without loading, compared, described.

`resolve_model` finds a directory or the hub's cache, `Checkpoint` and `LoraCheckpoint` read
tensors straight from safetensors files, `check_mergeable` says whether two fit together. `card`
writes what goes beside an exported model. Imports nothing of the other rooms.
"""

from .compatibility import check_mergeable, is_tied
from .hub import resolve_model
from .lora import LoraCheckpoint, is_adapter
from .reader import Checkpoint

__all__ = [
    "Checkpoint",
    "LoraCheckpoint",
    "check_mergeable",
    "is_adapter",
    "is_tied",
    "resolve_model",
]
