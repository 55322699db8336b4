"""Acquisition: what to evaluate next."""

from .arms import Choices, climb_arms
from .knowledge_gradient import KnowledgeGradient, Scale, preference_grid, worth_knowing
from .optimize import AcquisitionBudget, best_of, climb, raw_points, rounded
from .qlognehvi import make_acquisition
from .reference_point import front_span, infer_reference_point

__all__ = [
    "AcquisitionBudget",
    "Choices",
    "KnowledgeGradient",
    "Scale",
    "best_of",
    "climb",
    "climb_arms",
    "front_span",
    "infer_reference_point",
    "make_acquisition",
    "preference_grid",
    "raw_points",
    "rounded",
    "worth_knowing",
]
