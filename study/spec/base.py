"""What all sections of a spec share."""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from ...errors import SpecError
from ...objectives.checkpoints.text_files import read_text

Fraction = Annotated[float, Field(ge=0, le=1)]
_PERCENT = re.compile(r"^\s*([0-9.eE+-]+)\s*%\s*$")
NAME, TASK_NAME, URL = r"^[\w.-]+$", r"^[^/\s]+$", r"^\w+(\+\w+)?://"
# What may be a password in any text: to the last "@" after a colon or slashes, or to the end.
_CREDENTIALS = (
    re.compile(r"(:(?=\S)|//).*@", re.DOTALL),
    re.compile(r"(pass(?:word|file)['\"]?\s*[=:]).*", re.DOTALL | re.IGNORECASE),
)
# What a text must be, by its pattern.
PATTERNS = {
    NAME: "must be of letters, digits, `_`, `.` and `-` alone",
    TASK_NAME: "must have no space and no `/`",
    URL: "must be a database's URL, such as sqlite:///runs/study.db or postgresql://HOST/DATABASE",
}


def _share(value: Any) -> Any:
    """Return `0.5 %` as 0.005."""
    match = _PERCENT.match(value) if isinstance(value, str) else None
    return float(match.group(1)) / 100 if match else value


# What a user may write of it: a number, or a percentage.
_Written = Annotated[float, Field(gt=0, lt=1)] | Annotated[str, Field(pattern=_PERCENT.pattern)]
Share = Annotated[
    float, Field(gt=0, lt=1), BeforeValidator(_share, json_schema_input_type=_Written)
]


class Section(BaseModel):
    """A part of a spec: frozen, without unknown keys or numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `yes` for a number, which is 1 to pydantic.

        Raises:
            ValueError: If it is.
        """
        if isinstance(value, bool):
            kinds = set(_kinds(cls.model_fields[info.field_name or ""].annotation))
            if kinds & {int, float} and bool not in kinds:
                raise ValueError(f"must be a number, but got {str(value).lower()}")
        return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """Yield what an annotation is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


# Where a task names files; the values are texts, or texts by split.
_FILES = ("files", "path", "texts", "dataset", "lm_eval")
# A spec has hundreds of nodes; aliases of aliases can stand for billions.
_MOST_NODES = 100_000


class _Loader(yaml.SafeLoader):
    """YAML without what would be lost or never end: repeated keys, aliases without bound."""

    def get_single_node(self) -> yaml.Node | None:
        """Return the document, after checking its size with all aliases written out."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            self._check_size(node, {}, set())
        return node

    def _check_size(self, node: yaml.Node, sizes: dict[int, int], open_: set[int]) -> int:
        if id(node) in open_:
            raise yaml.YAMLError(f"line {node.start_mark.line + 1} holds itself by an alias")
        if id(node) not in sizes:
            open_.add(id(node))
            sizes[id(node)] = 1 + sum(self._check_size(n, sizes, open_) for n in _children(node))
            open_.remove(id(node))
        if sizes[id(node)] > _MOST_NODES:
            raise yaml.YAMLError(f"aliases make it more than {_MOST_NODES} nodes")
        return sizes[id(node)]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping whose keys are all different."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.YAMLError(
                        f"the key {key.value!r} is there twice, again in line "
                        f"{key.start_mark.line + 1}"
                    )
                seen.add(key.value)
        result: dict[Any, Any] = super().construct_mapping(node, deep)
        return result


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def expanded(path: str) -> Path:
    """Return a path with `~` and `~user` replaced.

    Raises:
        SpecError: If there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise SpecError(f"A path must exist, but {path!r} names an unknown user.") from error


def resolve(folder: Path, path: str) -> Path:
    """Return a path relative to the spec's folder, or to the working directory if it is there."""
    inside = folder / expanded(path)
    return Path(path) if not inside.exists() and Path(path).exists() else inside


def map_files(task: dict[str, Any], change: Callable[[str], str]) -> None:
    """Change every file that a task of a spec names, in place."""
    for key in _FILES:
        value = task.get(key)
        if isinstance(value, dict):
            task[key] = {split: change(path) for split, path in value.items()}
        elif isinstance(value, str):
            task[key] = change(value)


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: Of the file.
        what: It is, for messages: "spec".

    Raises:
        SpecError: With one line that says what is wrong.
    """
    text = read_text(path, f"A {what}")
    try:
        content = yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise SpecError(f"A {what} must be valid YAML, but {path} is nested too deep.") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(
            f"A {what} must be valid YAML, but {path} is not: {_problem(error)}."
        ) from error
    if not isinstance(content, dict):
        held = without_credentials(repr(content))
        raise SpecError(f"A {what} must be a YAML mapping, but {path} holds {held:.40}.")
    try:
        json.dumps(content, ensure_ascii=False, default=str).encode()
    except (UnicodeEncodeError, TypeError) as error:
        raise SpecError(
            f"A {what} must hold names and texts that can be written, but {path} does not: "
            f"{error}."
        ) from error
    return content


def without_credentials(text: str) -> str:
    """Return a text, such as a mistake in a spec, without what looks like a password in it."""
    for pattern in _CREDENTIALS:
        text = pattern.sub(r"\1***", text)
    return text


def _problem(error: Exception) -> str:
    """Return what is wrong and in which line; the line itself may hold a password."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        line = f" in line {error.problem_mark.line + 1}"
        return without_credentials(" ".join(error.problem.split())) + line
    return without_credentials(" ".join(str(error).split()))


def near_hint(value: str, choices: Sequence[str]) -> str:
    """Return how a sentence ends: `; did you mean ...?` if a choice is near, else `.`."""
    near = difflib.get_close_matches(value, choices, n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


def finite_number(text: str) -> float:
    """Return the number that a text is.

    Raises:
        ValueError: If it is none, or not finite.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number must be finite, but got {text!r}")
    return number


def check_choice(key: str, value: str, choices: list[str]) -> None:
    """Check a value against those allowed.

    Raises:
        ValueError: With the nearest allowed one.
    """
    if value not in choices:
        hint = near_hint(value, choices)
        raise ValueError(f"{key} must be one of {', '.join(choices)}, but got {value!r}{hint}")
