"""What all sections of a spec share."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from ...errors import SpecError

Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a spec: frozen, without unknown keys or numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def resolve(folder: Path, path: str) -> Path:
    """Return a path relative to the spec's folder, or to the working directory if it is there."""
    inside = folder / Path(path).expanduser()
    return Path(path) if not inside.exists() and Path(path).exists() else inside


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: Of the file.
        what: It is, for messages: "spec".

    Raises:
        SpecError: With one line that says what is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            f"A {what} must be a readable YAML file, but {path}: {error.strerror}."
        ) from error
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise SpecError(f"A {what} must be valid YAML, but {path} is not: {problem}.") from error
    if not isinstance(content, dict):
        raise SpecError(f"A {what} must be a YAML mapping, but {path} holds {content!r:.40}.")
    return content


def near_hint(value: str, choices: Sequence[str]) -> str:
    """Return ` Did you mean ...?` if one of the choices is near; else nothing."""
    near = difflib.get_close_matches(value, choices, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_choice(key: str, value: str, choices: list[str]) -> None:
    """Check a value against those allowed.

    Raises:
        ValueError: With the nearest allowed one.
    """
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{key} must be one of {', '.join(choices)}, but got {value!r}{hint}")
