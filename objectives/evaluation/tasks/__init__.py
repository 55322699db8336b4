"""Tasks: questions in disjoint splits, and how they are asked and scored."""

from .jsonl import SPLITS, Question, Split, Task, TaskSource, load_task

__all__ = ["SPLITS", "Question", "Split", "Task", "TaskSource", "load_task"]
