"""Every mistake in a spec is told in plain words: the key, the rule and the value."""

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from mergefront.errors import SpecError
from mergefront.study import StudySpec
from mergefront.study.spec.evaluation import TaskSection

CONTENT: dict[str, Any] = {
    "study": {"name": "s", "storage": "sqlite:///s.db", "trials": 8},
    "models": {"base": "b", "experts": ["e"]},
    "merge": {"operator": "ties"},
    "objectives": [{"metric": "accuracy"}],
    "evaluation": {
        "tasks": [{"name": "t", "scorer": "exact_match", "files": {"search": "q.jsonl"}}]
    },
}
_ODD: list[Any] = [None, "x", 3.5, -1, [], [[]], {}, {"x": "y"}, {"search": 3}, ["x", 1], [{}]]
# What pydantic says by itself.
_JARGON = re.compile(
    r"(Input|String) should|constrained|after validation|valid (tuple|list|dict|str|int)"
)


def _told(section: str, key: str, value: Any) -> str:
    content = deepcopy(CONTENT)
    content.setdefault(section, {})[key] = value
    with pytest.raises(SpecError) as caught:
        StudySpec.parse(content, Path())
    return str(caught.value).removeprefix("spec: ")


@pytest.mark.parametrize(
    ("section", "key", "value", "told"),
    [
        (
            "merge",
            "density",
            "x",
            "merge.density: must be a number, a mapping or a list, but got 'x'.",
        ),
        ("merge", "density", 2, "merge.density: must be less than or equal to 1, but got 2."),
        ("merge", "density", [0.2], "merge.density: must have at least 2 items, but got [0.2]."),
        ("merge", "density", {"a": "b"}, "merge.density.a: must be a number, but got 'b'."),
        ("merge", "bounds", [1], "merge.bounds: must have at least 2 items, but got [1]."),
        ("merge", "blocks", [], "merge.blocks: must have at least 1 item, but got []."),
        ("merge", "seed", "x", "merge.seed: must be an integer, but got 'x'."),
        (
            "study",
            "name",
            "a b",
            "study.name: must be of letters, digits, `_`, `.` and `-` alone, but got 'a b'.",
        ),
        (
            "study",
            "storage",
            "a.db",
            "study.storage: must be a database's URL, such as sqlite:///runs/study.db or "
            "postgresql://HOST/DATABASE, but got 'a.db'.",
        ),
        (
            "evaluation",
            "splits",
            {"val": 0.5},
            "evaluation.splits.val: must be one of importance, search, validation, test, but got "
            "'val'.",
        ),
        ("study", "trials", True, "study.trials: must be a number, but got true."),
        ("merge", "density", False, "merge.density: must be a number, but got false."),
        ("models", "stop_tokens", 5, "models.stop_tokens: must be a text or a list, but got 5."),
        (
            "models",
            "stop_tokens",
            ["a", 1.5],
            "models.stop_tokens.1: must be an integer or a text, but got 1.5.",
        ),
        (
            "evaluation",
            "batch_size",
            "x",
            "evaluation.batch_size: must be an integer or 'auto', but got 'x'.",
        ),
        (
            "evaluation",
            "batch_size",
            0,
            "evaluation.batch_size: must be greater than or equal to 1, but got 0.",
        ),
        (
            "merge",
            "density",
            {"a": "b", "c": 2},
            "merge.density.a: must be a number, but got 'b'. "
            "merge.density.c: must be less than or equal to 1, but got 2.",
        ),
        (
            "merge",
            "operator",
            [{"name": 3}, {"name": "ties", "density": "x"}],
            "merge.operator.0.name: must be a text, but got 3. "
            "merge.operator.1.density: must be a number, but got 'x'.",
        ),
        ("evaluation", "cache", "", "evaluation.cache: must not be empty, but got ''."),
    ],
)
def test_a_value_is_told_one_rule(section: str, key: str, value: Any, told: str) -> None:
    assert _told(section, key, value) == told


def _places() -> Iterator[tuple[str, str]]:
    for name, field in StudySpec.model_fields.items():
        part = field.annotation
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield from ((name, own.alias or key) for key, own in part.model_fields.items())
    yield from (("task", field.alias or key) for key, field in TaskSection.model_fields.items())


@pytest.mark.parametrize(("section", "key"), sorted({*_places()}))
def test_no_mistake_is_told_in_the_words_of_a_library(section: str, key: str) -> None:
    for value in _ODD:
        content = deepcopy(CONTENT)
        part = content["evaluation"]["tasks"][0] if section == "task" else content
        (part if section == "task" else part.setdefault(section, {}))[key] = value
        try:
            StudySpec.parse(content, Path())
        except SpecError as error:
            assert not _JARGON.search(str(error)), str(error)
