"""Scorers: (answer's text, reference) -> correct or not."""

from .exact_match import Scorer, exact_match, final_answer

SCORERS: dict[str, Scorer] = {"exact_match": exact_match}

__all__ = ["SCORERS", "Scorer", "exact_match", "final_answer"]
