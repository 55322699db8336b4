"""How similar two models are: what SimMerge predicts the outcome of a merge from."""

from .functional import FunctionalSettings, functional_signals
from .signals import Signals
from .structural import structural_signals

__all__ = ["FunctionalSettings", "Signals", "functional_signals", "structural_signals"]
