"""How similar models are: what SimMerge predicts the outcome of a merge from."""

from .functional import FunctionalSettings, Prompt, Seen, compare, functional_signals, observe
from .signals import Pair, Signals, merge_features
from .structural import structural_signals

__all__ = [
    "FunctionalSettings",
    "Pair",
    "Prompt",
    "Seen",
    "Signals",
    "compare",
    "functional_signals",
    "merge_features",
    "observe",
    "structural_signals",
]
