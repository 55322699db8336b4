"""Tasks: questions in disjoint splits, and how they are asked and scored."""

from .jsonl import TaskSource, load_task
from .judge import JUDGE_PROMPT, JudgeSource, judged
from .task import SPLITS, Question, Split, Task, check_disjoint
from .texts import load_texts

__all__ = [
    "JUDGE_PROMPT",
    "SPLITS",
    "JudgeSource",
    "Question",
    "Split",
    "Task",
    "TaskSource",
    "check_disjoint",
    "judged",
    "load_task",
    "load_texts",
]
