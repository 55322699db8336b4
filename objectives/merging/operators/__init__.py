"""Merge operators: pure functions of tensors, one file a family."""

from ._base import Operator, Options, Parameter, check_operator
from .linear import LINEAR, NEARSWAP, PASSTHROUGH
from .spherical import KARCHER, MODEL_STOCK, MULTISLERP, NUSLERP, SCE, SLERP
from .task_vectors import FAMILY

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        LINEAR,
        *FAMILY,
        SLERP,
        NUSLERP,
        MULTISLERP,
        KARCHER,
        MODEL_STOCK,
        SCE,
        NEARSWAP,
        PASSTHROUGH,
    )
}

__all__ = ["OPERATORS", "Operator", "Options", "Parameter", "check_operator"]
