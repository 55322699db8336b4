"""What the files hold, and what loading makes of it: one table of tensors."""

from .padding import PaddedCheckpoint, fitted
from .skeleton import model_class, parsed_config
from .table import (
    TensorTable,
    embeddings_name,
    is_head,
    is_tied,
    same,
    tensor_table,
)

__all__ = [
    "PaddedCheckpoint",
    "TensorTable",
    "embeddings_name",
    "fitted",
    "is_head",
    "is_tied",
    "model_class",
    "parsed_config",
    "same",
    "tensor_table",
]
