"""Question files: one JSON object a line."""

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import SpecError
from ..backends.backend import Completion, Sampling, final_answer
from ..scorers import SCORERS, Scorer, math_equal
from ..scorers.math import check_installed
from .task import Question, Split, Task, check_disjoint, check_splits, divide


@dataclass(frozen=True)
class TaskSource:
    """Where a task's questions come from.

    Args:
        name: Names the task in tables and errors.
        files: One file per split; or
        path: one file for all splits, divided by `fractions` of a fixed, hashed order.
        prompt: Template of the user's message; `{field}` inserts a field of the line.
        answer: The field that holds the reference.
        scorer: Name in `SCORERS`.
        fractions: Share of the questions of `path` in each split.
        sampling: How its answers are generated. Defaults to None: as the study's.
        cluster: The field that questions which belong together share. Defaults to None: none do.
    """

    name: str
    files: Mapping[Split, Path]
    path: Path | None = None
    prompt: str = "{prompt}"
    answer: str = "answer"
    scorer: str = "exact_match"
    fractions: Mapping[Split, float] | None = None
    sampling: Sampling | None = None
    cluster: str | None = None


def load_task(source: TaskSource) -> Task:
    """Read and check a task.

    Raises:
        SpecError: If a file is missing, a line lacks a field, a split is empty, or one question
            is in two splits.
        MissingExtraError: If the scorer needs what is not installed.
    """
    scorer = SCORERS[source.scorer]
    if scorer is math_equal:
        check_installed()
    if source.path is not None:
        questions = _read(source.path, source)
        splits = divide(questions, lambda q: q.content_hash, source.fractions or {})
    else:
        splits = {split: _read(path, source) for split, path in source.files.items()}
    check_splits(source.name, splits)
    task = Task(
        source.name,
        source.scorer,
        {split: tuple(questions) for split, questions in splits.items()},
        lambda question, completion: _score(scorer, question, completion),
        source.sampling,
    )
    check_disjoint([task])
    return task


def _score(scorer: Scorer, question: Question, completion: Completion) -> float:
    answer = final_answer(completion)
    return 0.0 if answer is None else float(scorer(answer, question.answer))


def _read(path: Path, source: TaskSource) -> list[Question]:
    if not path.is_file():
        raise SpecError(
            f"Questions of task {source.name!r} must be in a file, but {path} does not exist. "
            "Correct the path under `evaluation.tasks`."
        )
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [_question(line, f"{path}:{i}", source) for i, line in enumerate(lines, start=1)]


def _question(line: str, place: str, source: TaskSource) -> Question:
    try:
        fields: dict[str, Any] = json.loads(line)
        prompt, answer = source.prompt.format_map(fields), str(fields[source.answer])
        cluster = "" if source.cluster is None else str(fields[source.cluster])
    except json.JSONDecodeError as error:
        raise SpecError(
            f"Every line must be a JSON object, but {place} is not: {error}."
        ) from error
    except KeyError as error:
        raise SpecError(
            f"Every question needs the fields its task names, but {place} has no {error}; it has "
            f"{sorted(fields)}. Correct `prompt`, `answer` or `cluster` of task {source.name!r}."
        ) from error
    asked = [name for _, name, _, _ in string.Formatter().parse(source.prompt) if name]
    content = " ".join(str(fields.get(name, "")) for name in asked)
    name = str(fields.get("id", place.rsplit(":", 1)[1]))
    return Question(name, prompt, answer, content, cluster)
