"""Candidate in, numbers out: merging, evaluation, importance."""

from .objective import Measurement, MergeObjective, ScoredQuestion, questions_of

__all__ = ["Measurement", "MergeObjective", "ScoredQuestion", "questions_of"]
