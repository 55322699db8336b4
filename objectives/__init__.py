"""Candidate in, numbers out: merging, evaluation, importance."""

from .evaluation.scored_question import ScoredQuestion, questions_of
from .measurement import Measurement
from .objective import MergeObjective

__all__ = ["Measurement", "MergeObjective", "ScoredQuestion", "questions_of"]
