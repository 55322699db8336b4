"""Merge operators: pure functions of tensors, one file a family."""

from ._base import Operator, check_weights
from .linear import LINEAR

OPERATORS: dict[str, Operator] = {LINEAR.name: LINEAR}

__all__ = ["LINEAR", "OPERATORS", "Operator", "check_weights"]
