"""Models as they lie on disk: found, read without loading, compared, described.

`resolve_model` finds a directory or the hub's cache, `Checkpoint` and `LoraCheckpoint` read
tensors straight from safetensors files, `tensor_table` says what loading makes of them, and
`check_mergeable` whether two fit together. Imports nothing of the other rooms.
"""

from .compatibility import check_mergeable
from .hub import resolve_model
from .lora import LoraCheckpoint, is_adapter, open_expert, reads_base
from .reader import Checkpoint
from .tensors import TensorTable, is_tied, tensor_table

__all__ = [
    "Checkpoint",
    "LoraCheckpoint",
    "TensorTable",
    "check_mergeable",
    "is_adapter",
    "is_tied",
    "open_expert",
    "reads_base",
    "resolve_model",
    "tensor_table",
]
