"""How similar models are: what SimMerge predicts the outcome of a merge from."""

from .functional import FunctionalSettings, Prompt, Seen, compare, functional_signals, observe
from .signals import Pair, Signals
from .structural import structural_signals

__all__ = [
    "FunctionalSettings",
    "Pair",
    "Prompt",
    "Seen",
    "Signals",
    "compare",
    "functional_signals",
    "observe",
    "structural_signals",
]
