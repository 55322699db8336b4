"""Ask a model questions and turn its answers into objective values with standard errors."""

from .backend import Backend, Completion, Models, Progress, Sampling
from .metrics import METRICS, Answer, Metric
from .scorers import SCORERS, Scorer
from .tasks import SPLITS, Question, Task, TaskSource, load_task

__all__ = [
    "METRICS",
    "SCORERS",
    "SPLITS",
    "Answer",
    "Backend",
    "Completion",
    "Metric",
    "Models",
    "Progress",
    "Question",
    "Sampling",
    "Scorer",
    "Task",
    "TaskSource",
    "load_task",
]
