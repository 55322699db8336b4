"""What a study is, and running it."""

from .front import pareto_front
from .spec import StudySpec

__all__ = ["StudySpec", "pareto_front"]
