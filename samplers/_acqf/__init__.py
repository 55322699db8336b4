"""Acquisition: what to evaluate next."""

from .optimize import AcquisitionBudget, maximize
from .qlognehvi import make_acquisition
from .reference_point import infer_reference_point

__all__ = ["AcquisitionBudget", "infer_reference_point", "make_acquisition", "maximize"]
