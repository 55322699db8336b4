"""Acquisition: what to evaluate next."""

from .knowledge_gradient import KnowledgeGradient, Scale, preference_grid, worth_knowing
from .optimize import AcquisitionBudget, climb, maximize, raw_points
from .qlognehvi import make_acquisition
from .reference_point import front_span, infer_reference_point

__all__ = [
    "AcquisitionBudget",
    "KnowledgeGradient",
    "Scale",
    "climb",
    "front_span",
    "infer_reference_point",
    "make_acquisition",
    "maximize",
    "preference_grid",
    "raw_points",
    "worth_knowing",
]
