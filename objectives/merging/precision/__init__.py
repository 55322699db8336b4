"""Weights as they are served: rounded to few bits in the pass that merges them, and stored so."""

from .formats import (
    FORMATS,
    PRECISION,
    Format,
    Precision,
    PrecisionName,
    is_precision,
    precisions,
)
from .rounding import Quantized, quantized, round_weight
from .sizes import known_size
from .storing import outline, quantization_config, served_bytes, stored

__all__ = [
    "FORMATS",
    "PRECISION",
    "Format",
    "Precision",
    "PrecisionName",
    "Quantized",
    "is_precision",
    "known_size",
    "outline",
    "precisions",
    "quantization_config",
    "quantized",
    "round_weight",
    "served_bytes",
    "stored",
]
