"""The spec's sections on what is merged, and how: models, operators, and arms to choose from."""

from .arms import arms_of, check_arm, check_order
from .models import ChooseSection, ModelsSection
from .section import MergeSection, OperatorSection

__all__ = [
    "ChooseSection",
    "MergeSection",
    "ModelsSection",
    "OperatorSection",
    "arms_of",
    "check_arm",
    "check_order",
]
