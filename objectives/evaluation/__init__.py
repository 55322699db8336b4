"""Ask a model questions and turn its answers into objective values with standard errors."""

from .backends import (
    Backend,
    ChatSettings,
    Completion,
    Finished,
    Models,
    Reasoning,
    Sampling,
    final_answer,
)
from .metric_table import METRICS
from .metrics import Answer, Constraint, Metric, ObjectiveMetric, TaskShare
from .scorers import SCORERS, Scorer
from .tasks import SPLITS, Question, Task, TaskSource, check_disjoint, load_task

__all__ = [
    "METRICS",
    "SCORERS",
    "SPLITS",
    "Answer",
    "Backend",
    "ChatSettings",
    "Completion",
    "Constraint",
    "Finished",
    "Metric",
    "Models",
    "ObjectiveMetric",
    "Question",
    "Reasoning",
    "Sampling",
    "Scorer",
    "Task",
    "TaskShare",
    "TaskSource",
    "check_disjoint",
    "final_answer",
    "load_task",
]
