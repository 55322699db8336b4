"""Candidate in, numbers out: merging, evaluation, importance."""

from .evaluation.asking import ScoredQuestion, questions_of
from .objective import Measurement, MergeObjective

__all__ = ["Measurement", "MergeObjective", "ScoredQuestion", "questions_of"]
