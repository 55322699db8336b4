"""Scorers: (final answer, reference) -> correct or not.

`math_equal` runs in a `ScoringProcess`, as anything must that evaluates what a model wrote:
`server` is the process, `equality` what it runs.
"""

from .deadline import ScoringProcess
from .exact_match import Scorer, exact_match
from .math import math_equal

SCORERS: dict[str, Scorer] = {"exact_match": exact_match, "math": math_equal}

__all__ = ["SCORERS", "Scorer", "ScoringProcess", "exact_match", "math_equal"]
