"""Scorers: (answer's text, reference) -> correct or not."""

from .exact_match import Scorer, exact_match, final_answer
from .math import math_equal

SCORERS: dict[str, Scorer] = {"exact_match": exact_match, "math": math_equal}

__all__ = ["SCORERS", "Scorer", "exact_match", "final_answer", "math_equal"]
