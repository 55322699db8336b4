"""Noisy bi-objective problems with a known truth, and the scores of a search on them."""

from .base import Problem, hypervolume, utilities
from .suite import GROUPS, make_problem

__all__ = ["GROUPS", "Problem", "hypervolume", "make_problem", "utilities"]
