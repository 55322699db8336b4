"""What all sections of a spec share."""

import difflib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a spec: frozen, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def resolve(folder: Path, path: str) -> Path:
    """Return a path relative to the spec's folder, or to the working directory if it is there."""
    inside = folder / Path(path).expanduser()
    return Path(path) if not inside.exists() and Path(path).exists() else inside


def check_choice(key: str, value: str, choices: list[str]) -> None:
    """Check a value against those allowed.

    Raises:
        ValueError: With the nearest allowed one.
    """
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{key} must be one of {', '.join(choices)}, but got {value!r}{hint}")
