"""Two-way merges: what is known before, and what was measured."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Merge:
    """A two-way merge on a task, before it is measured.

    Args:
        models: What is merged, the first one first; any names that tell models apart.
        operator: Name of the merge operator.
        features: Name -> number: similarity of the two models, on the task's prompts where it is
            functional.
    """

    models: tuple[str, str]
    operator: str
    features: Mapping[str, float]


@dataclass(frozen=True)
class Example:
    """A merge and what was measured.

    Args:
        merge: What was merged.
        gain: Score of the merged model minus the mean of its parents', larger is better.
        standard_error: Of the gain.
        task: On which all three were scored.
    """

    merge: Merge
    gain: float
    standard_error: float = 0.0
    task: str = ""


def write_examples(examples: Iterable[Example], path: Path) -> None:
    """Write one JSON object a line."""
    lines = [json.dumps(asdict(example)) + "\n" for example in examples]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


def read_examples(path: Path) -> list[Example]:
    """Read what `write_examples` wrote.

    Raises:
        ValueError: If a line is none; with its number.
    """
    examples = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            examples.append(_parse(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} is no measured merge ({error})") from error
    return examples


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping, but got {json.dumps(value):.40}")
    return dict(value)


def _parse(value: Any) -> Example:
    content = _mapping(value, "it")
    merge = _mapping(content.pop("merge"), "`merge`")
    if not (isinstance(merge["models"], list) and len(merge["models"]) == 2):
        raise ValueError("`models` must be a list of two names")
    left, right = map(str, merge["models"])
    given = _mapping(merge["features"], "`features`")
    features = {name: float(value) for name, value in given.items()}
    content |= {key: float(content[key]) for key in ("gain", "standard_error") if key in content}
    example = Example(Merge((left, right), str(merge["operator"]), features), **content)
    if not all(map(isfinite, (*features.values(), example.gain, example.standard_error))):
        raise ValueError("all its numbers must be finite")
    return example


def shared_features(merges: Sequence[Merge]) -> list[str]:
    """Return the names of the features that all merges have, sorted."""
    common = set(merges[0].features) if merges else set()
    for merge in merges[1:]:
        common &= merge.features.keys()
    return sorted(common)
