"""Question files: one JSON object a line."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ....errors import SpecError

Split = Literal["importance", "search", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Question:
    """One question, rendered.

    Args:
        id: Unique within its task.
        prompt: The user's message.
        answer: The reference.
    """

    id: str
    prompt: str
    answer: str

    @property
    def content_hash(self) -> str:
        """Hash of what is asked; two questions that share it are the same question."""
        return hashlib.sha256(self.prompt.encode()).hexdigest()


@dataclass(frozen=True)
class TaskSource:
    """Where a task's questions come from.

    Args:
        name: Names the task in tables and errors.
        files: One file a split; or
        path: one file for all splits, divided by `fractions` of a fixed, hashed order.
        prompt: Template of the user's message; `{field}` inserts a field of the line.
        answer: The field that holds the reference.
        scorer: Name in `SCORERS`.
        fractions: Share of the questions of `path` in each split.
    """

    name: str
    files: Mapping[Split, Path]
    path: Path | None = None
    prompt: str = "{prompt}"
    answer: str = "answer"
    scorer: str = "exact_match"
    fractions: Mapping[Split, float] | None = None


@dataclass(frozen=True)
class Task:
    """A task's questions by split.

    Args:
        name: As in its source.
        scorer: Name in `SCORERS`.
        splits: Every split that has questions.
    """

    name: str
    scorer: str
    splits: Mapping[Split, tuple[Question, ...]]

    def content_hash(self, splits: Sequence[Split] = SPLITS) -> str:
        """Return `sha256:...` over everything that decides a score, for the given splits."""
        digest = hashlib.sha256(self.scorer.encode())
        for split in splits:
            for question in self.splits.get(split, ()):
                digest.update(json.dumps([split, question.prompt, question.answer]).encode())
        return "sha256:" + digest.hexdigest()


def load_task(source: TaskSource) -> Task:
    """Read and check a task.

    Raises:
        SpecError: If a file is missing, a line lacks a field, a split is empty, or one question
            is in two splits.
    """
    if source.path is not None:
        questions = _read(source.path, source)
        splits = _divide(questions, source)
    else:
        splits = {split: _read(path, source) for split, path in source.files.items()}
    for split, members in splits.items():
        if not members:
            raise SpecError(
                f"Every split of a task must have questions, but {split!r} of task "
                f"{source.name!r} is empty. Add questions to its file or raise its fraction."
            )
    _check_disjoint(source.name, splits)
    return Task(source.name, source.scorer, {s: tuple(q) for s, q in splits.items()})


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
    except json.JSONDecodeError as error:
        raise SpecError(
            f"Every line must be a JSON object, but {place} is not: {error}."
        ) from error
    except KeyError as error:
        raise SpecError(
            f"Every question needs the fields its task names, but {place} has no {error}; it has "
            f"{sorted(fields)}. Correct `prompt` or `answer` of task {source.name!r}."
        ) from error
    return Question(str(fields.get("id", place.rsplit(":", 1)[1])), prompt, answer)


def _divide(questions: list[Question], source: TaskSource) -> dict[Split, list[Question]]:
    """Cut a hashed order, so that neither the file's order nor its growth mixes splits."""
    ordered = sorted(questions, key=lambda q: q.content_hash)
    splits: dict[Split, list[Question]] = {}
    start = 0.0
    for split, fraction in (source.fractions or {}).items():
        end = start + fraction
        splits[split] = ordered[round(start * len(ordered)) : round(end * len(ordered))]
        start = end
    return splits


def _check_disjoint(name: str, splits: Mapping[Split, Sequence[Question]]) -> None:
    seen: dict[str, Split] = {}
    for split, questions in splits.items():
        for question in questions:
            other = seen.setdefault(question.content_hash, split)
            if other != split:
                raise SpecError(
                    f"Splits must be disjoint, but a question of task {name!r} is in {other!r} "
                    f"and {split!r}: {question.prompt[:60]!r}. Remove it from one."
                )
