"""Tasks: questions in disjoint splits, and how they are asked and scored."""

from .jsonl import TaskSource, load_task
from .task import SPLITS, Question, Split, Task, check_disjoint
from .texts import load_texts

__all__ = [
    "SPLITS",
    "Question",
    "Split",
    "Task",
    "TaskSource",
    "check_disjoint",
    "load_task",
    "load_texts",
]
