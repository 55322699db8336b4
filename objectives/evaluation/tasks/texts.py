"""Texts that a model reads: what divergences and perplexities are measured on."""

from pathlib import Path

from ....errors import SpecError
from ..backends.backend import Completion, Sampling
from .jsonl import TaskSource, cluster_of, read_file, read_rows, reading
from .lines import render
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

# Files of one JSON object a line; all others are plain text.
_JSON_LINES = (".jsonl", ".ndjson", ".json")


def load_texts(source: TaskSource) -> Task:
    """Read a task's texts; nothing is asked, and there is no reference.

    A file of JSON lines holds one text a line, by default in its field `text`. In any other file
    texts are separated by empty lines.

    Args:
        source: Its files, `prompt` (the template of a text) and `cluster`.

    Raises:
        SpecError: If a file is missing, a line lacks a field, a split is empty, or one text is in
            two splits.
    """
    if source.path is not None:
        divided = divide(_read(source.path, source), _key, source.fractions or {})
    else:
        divided = {split: _read(path, source) for split, path in source.files.items()}
    check_splits(source.name, divided)
    splits: dict[Split, tuple[Question, ...]] = {s: tuple(t) for s, t in divided.items()}
    task = Task(source.name, "texts", splits, _no_score, Sampling(0, chat=False))
    check_disjoint([task])
    return task


def _key(question: Question) -> str:
    return question.content_hash


def _no_score(question: Question, completion: Completion) -> float:
    """Return 0: a text is no question, and metrics of answers do not count it."""
    return 0.0


def _read(path: Path, source: TaskSource) -> list[Question]:
    if path.suffix in _JSON_LINES:
        texts = [_text(fields, place, source) for place, fields in read_rows(path, source)]
    else:
        texts = [
            Question(str(i), text, "", is_text=True)
            for i, text in enumerate(_paragraphs(read_file(path, source)), start=1)
        ]
    if empty := [text.id for text in texts if not text.prompt.strip()]:
        raise SpecError(
            f"Every text must have words, but text {empty[0]} of {path} has none (task "
            f"{source.name!r}). Remove it."
        )
    return with_own_ids(without_copies(texts, f"{path} of task {source.name!r}"))


def _text(fields: dict[str, object], place: str, source: TaskSource) -> Question:
    with reading(fields, place, source):
        text, _ = render(source.prompt, fields)
        cluster = cluster_of(fields, source)
    name = str(fields.get("id", place.rsplit(":", 1)[1]))
    return Question(name, text, "", cluster=cluster, is_text=True)


def _paragraphs(content: str) -> list[str]:
    """Return what stands between empty lines."""
    paragraphs: list[list[str]] = [[]]
    for line in content.split("\n"):
        if line.strip():
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    return ["\n".join(lines) for lines in paragraphs if lines]
