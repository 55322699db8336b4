"""Lines of question files: the objects that they hold, and texts into which fields go."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ....errors import SpecError

_BRACES = re.compile(r"\{\{|\}\}|(?P<command>\\[A-Za-z]+)?\{(?P<name>[^{}]*)\}")
# What begins like a field's name: `{prompt}`, and `{prompt.x}` or `{prompt!r}` by mistake.
_NAME = re.compile(r"[A-Za-z_]\w*(?:$|[.\[!:])")


def fields_of(line: str, place: str) -> dict[str, Any]:
    """Return the JSON object that a line holds.

    Raises:
        SpecError: If it holds another thing, or a key twice.
    """
    try:
        fields = json.loads(line, object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        raise SpecError(
            f"Every line must be a JSON object, but {place} is not: {error}. Correct the line."
        ) from error
    if not isinstance(fields, dict):
        raise SpecError(
            f"Every line must be a JSON object, but {place} is {fields!r:.40}. Write one object a "
            "line; `jq -c '.[]' FILE` does it with a JSON list."
        )
    return fields


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; of a key that comes twice, JSON readers keep the last one unsaid."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise ValueError(f"the key {twice!r} comes twice")
    return fields


def render(template: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    r"""Return a template with fields inserted, and the fields' texts alone.

    `{name}` inserts a field, `{{` and `}}` are braces. Braces around anything that is no name are
    left alone, and so are those of LaTeX: `\boxed{}`, `\frac{1}{2}`, `\text{km}`.

    Raises:
        KeyError: With the name of a field that is missing.
        ValueError: If a field holds no text, or `{name...}` asks for a part of one.
    """
    used: list[str] = []

    def insert(found: re.Match[str]) -> str:
        whole, command, name = found[0], found["command"], found["name"]
        if name is None:
            return whole[0]
        if name in fields:
            used.append(text_of(fields[name], name))
            return (command or "") + used[-1]
        if command or not _NAME.match(name):
            return whole
        if not name.isidentifier():
            raise ValueError(f"`prompt` inserts whole fields, but names {{{name}}}")
        raise KeyError(name)

    return _BRACES.sub(insert, template), " ".join(used)


def text_of(value: object, name: str) -> str:
    """Return a field's text.

    Raises:
        ValueError: If it is neither text that can be written nor a number.
    """
    finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not finite:
        raise ValueError(
            f"a field must be text or a number, but {name!r} is {json.dumps(value):.40}"
        )
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"a field must be text, but {name!r} has half a character") from None
    return text


def cluster_name(value: object) -> str:
    """Return what a cluster's field says; "", a cluster of its own, for null."""
    return "" if value is None else str(value)
