"""The spec's sections on what is merged, and how: models, operators, and arms to choose from."""

from .arms import arms_of, check_arm, check_order
from .models import ChooseSection, ModelsSection
from .precision import PrecisionSection, check_dtype
from .section import MergeSection, OperatorSection

__all__ = [
    "ChooseSection",
    "MergeSection",
    "ModelsSection",
    "OperatorSection",
    "PrecisionSection",
    "arms_of",
    "check_arm",
    "check_dtype",
    "check_order",
]
