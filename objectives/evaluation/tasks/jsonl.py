"""Question files: one JSON object a line."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ....errors import EvaluationError, SpecError
from ...checkpoints.text_files import read_text
from ..backends.backend import Completion, Sampling, final_answer
from ..scorers import (
    SCORERS,
    Scorer,
    ScoringProcess,
    check_reference,
    check_scorer,
    exact_match,
)
from .lines import cluster_name, fields_of, render, text_of
from .task import (
    Question,
    Split,
    Task,
    check_disjoint,
    check_splits,
    divide,
    with_own_ids,
    without_copies,
)

# The scorer whose answers a model judges, by `judged`.
JUDGED = "judge"


@dataclass(frozen=True)
class TaskSource:
    """Where a task's questions come from.

    Args:
        name: Names the task in tables and errors.
        files: One file per split; or
        path: one file for all splits, divided by `fractions` of a fixed, hashed order.
        prompt: Template of the user's message; `{field}` inserts a field of the line.
        answer: The field that holds the reference.
        scorer: Name in `SCORERS`, `judge`, or `module:function` or `path/of/file.py:function`,
            called with a final answer and the question's whole line, a dictionary.
        fractions: Share of the questions of `path` in each split.
        sampling: How its answers are generated. Defaults to None: as the study's.
        cluster: The field that questions which belong together share. Defaults to None: none do.
        folder: Where scorers of one's own are looked for first; a file then beside the questions
            and in the working directory.
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
    folder: Path = Path(".")


def load_task(source: TaskSource) -> Task:
    """Read and check a task.

    Raises:
        SpecError: If a file is missing, a line lacks a field, a split is empty, or one question
            is in two splits.
        MissingExtraError: If the scorer needs what is not installed.
    """
    own = ":" in source.scorer
    if not own:
        check_scorer(source.scorer)
    if source.path is not None:
        questions = _read(source.path, source)
        splits = divide(questions, lambda q: q.content_hash, source.fractions or {})
    else:
        splits = {split: _read(path, source) for split, path in source.files.items()}
    check_splits(source.name, splits)
    scorer = SCORERS.get(source.scorer, exact_match)
    score: Callable[[Question, Completion], float] = partial(_score, scorer)
    identity = source.scorer
    if own:
        first = next(iter(splits.values()))[0]
        known = (first.answer, json.loads(first.row))
        process = ScoringProcess(_target(source), folders=[source.folder], known=known)
        score = partial(_own_score, process)
        _check_own(source, score, first)
        identity = f"{source.scorer} {process.source}"
    members = {split: tuple(questions) for split, questions in splits.items()}
    task = Task(source.name, identity, members, score, source.sampling)
    check_disjoint([task])
    return task


def _places(source: TaskSource) -> list[Path]:
    """Return the folders in which a scorer's file is looked for, in order.

    Questions that lie elsewhere than their spec have the scorer beside them.
    """
    files = [*source.files.values(), *([] if source.path is None else [source.path])]
    places = [source.folder, *(file.parent for file in files), Path()]
    return list(dict.fromkeys(place.absolute() for place in places))


def _target(source: TaskSource) -> str:
    """Return a scorer of one's own with the path of its file, which may lie in several places."""
    file, mark, function = source.scorer.rpartition(":")
    if not file.endswith(".py"):
        return source.scorer
    found = [place / os.path.expanduser(file) for place in _places(source)]
    return f"{next(filter(Path.is_file, found), file)}{mark}{function}"


def _score(scorer: Scorer, question: Question, completion: Completion) -> float:
    answer = final_answer(completion)
    return 0.0 if answer is None else float(scorer(answer, question.answer))


def _own_score(process: ScoringProcess, question: Question, completion: Completion) -> float:
    """Return what a user's own scorer says of an answer.

    Raises:
        EvaluationError: If that is no number within [0, 1].
    """
    answer = final_answer(completion)
    score = 0.0 if answer is None else process(answer, json.loads(question.row))
    if not 0 <= score <= 1:
        raise EvaluationError(
            f"A scorer must give a number within [0, 1], but {process.target} gives {score:g}."
        )
    return score


def _check_own(
    source: TaskSource, score: Callable[[Question, Completion], float], question: Question
) -> None:
    """Call a user's own scorer once.

    Raises:
        SpecError: If it cannot be imported, raises, or gives no number.
    """
    try:
        score(question, Completion(question.answer, 1, "stop"))
    except EvaluationError as error:
        is_file = source.scorer.rpartition(":")[0].endswith(".py")
        places = (
            ", ".join(map(str, _places(source)))
            if is_file
            else f"{source.folder.absolute()} and where Python finds modules"
        )
        raise SpecError(
            f"{error} Correct it, or `scorer` of task {source.name!r}: it is looked for in "
            f"{places}."
        ) from error


def _read(path: Path, source: TaskSource) -> list[Question]:
    """Read a file's questions; one that is asked again further down counts once."""
    rows = read_rows(path, source)
    questions = [_question(fields, place, source) for place, fields in rows]
    return with_own_ids(without_copies(questions, f"{path} of task {source.name!r}"))


def read_rows(path: Path, source: TaskSource) -> list[tuple[str, dict[str, Any]]]:
    """Return the place and the fields of every line of a file.

    Raises:
        SpecError: If there is no such file, or a line is no JSON object.
    """
    # Not `splitlines`: JSON may hold U+2028 and others as they are.
    lines = read_file(path, source).split("\n")
    rows = [(f"{path}:{i}", line) for i, line in enumerate(lines, start=1) if line.strip()]
    return [(place, fields_of(line, place)) for place, line in rows]


def read_file(path: Path, source: TaskSource) -> str:
    """Return the text of a task's file.

    Raises:
        SpecError: If there is none.
    """
    if not path.is_file():
        raise SpecError(
            f"Questions of task {source.name!r} must be in a file, but {path} does not exist. "
            "Correct the path under `evaluation.tasks`."
        )
    return read_text(path, "A question file")


def _question(fields: dict[str, Any], place: str, source: TaskSource) -> Question:
    with reading(fields, place, source):
        prompt, content = render(source.prompt, fields)
        answer = _reference(fields, source)
        cluster = cluster_of(fields, source)
    if not answer.strip():
        raise SpecError(
            f"Every question needs a reference, but {source.answer!r} of {place} is empty. "
            "Correct it, or remove the line."
        )
    name = str(fields.get("id", place.rsplit(":", 1)[1]))
    row = json.dumps(fields) if ":" in source.scorer or source.scorer == JUDGED else ""
    return Question(name, prompt, answer, content, cluster, row=row)


@contextmanager
def reading(fields: Mapping[str, Any], place: str, source: TaskSource) -> Iterator[None]:
    """Turn what a line lacks, or has in another form, into an error that names it.

    Raises:
        SpecError: If reading raises `KeyError` or `ValueError`.
    """
    try:
        yield
    except KeyError as error:
        raise SpecError(
            f"Every question needs the fields its task names, but {place} has no {error}; it has "
            f"{sorted(fields)}. Correct `prompt`, `answer` or `cluster` of task {source.name!r}; "
            "braces that are no field are written {{ and }}."
        ) from error
    except ValueError as error:
        raise SpecError(f"{place}: {error} (task {source.name!r}).") from error


def cluster_of(fields: Mapping[str, Any], source: TaskSource) -> str:
    """Return what a line shares with those it belongs to; "" if it belongs to none."""
    return "" if source.cluster is None else cluster_name(fields[source.cluster])


def _reference(fields: Mapping[str, Any], source: TaskSource) -> str:
    """Return what answers are scored against, as text.

    Raises:
        ValueError: If the scorer cannot use it.
    """
    reference = fields[source.answer]
    if source.scorer == "json_schema" and isinstance(reference, dict):
        reference = json.dumps(reference)
    if source.scorer == "unit_tests" and "entry_point" in fields:  # HumanEval's shape
        return f"{reference}\n\ncheck({fields['entry_point']})\n"
    text = text_of(reference, source.answer)
    if text.strip():
        check_reference(source.scorer, text)
    return text
