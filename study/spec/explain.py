"""Pydantic's complaints about a spec, as one line that names the key, the value and the rule."""

import difflib
import re
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ...objectives.evaluation import SPLITS
from .base import near_hint

# Complaints that are told in full.
_MOST = 3


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return pydantic's complaints as one line: a few of them, and how many more there are.

    Args:
        error: Of the validation.
        model: What was validated.
    """
    details = error.errors(include_url=False)
    # A misspelt key may be missing elsewhere: the misspelling says more.
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    told = list(dict.fromkeys(_explain_one(detail, model) for detail in details))
    more = f" (and {len(told) - _MOST} more)" if len(told) > _MOST else ""
    return " ".join(told[:_MOST]) + more


def _explain_one(detail: ErrorDetails, model: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(detail["loc"][:-1], model)
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
        return f"unknown key {place!r}; {hint}"
    if detail["type"] == "missing":
        return f"{place!r} is missing; add it."
    if detail["type"] == "literal_error":
        return f"{place}: {_choice(detail)}"
    message = detail["msg"].removeprefix("Value error, ").removesuffix(".")
    shown = "" if detail["type"] == "value_error" else f", but got {detail['input']!r:.60}"
    end = "" if message.endswith("?") and not shown else "."
    return f"{place + ': ' if place else ''}{message}{shown}{end}"


def _choice(detail: ErrorDetails) -> str:
    """Return what a value may be, and which of it is near."""
    expected = detail.get("ctx", {})["expected"]
    choices = re.findall(r"'([^']*)'", expected)
    hint = near_hint(str(detail["input"]), choices)
    return (
        f"must be one of {', '.join(choices) or expected}, but got {detail['input']!r:.60}{hint}"
    )


def _known_keys(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """Return the keys of the section at `location`, found by walking the models' annotations."""
    model: Any = root
    for part in location:
        if part not in model.model_fields:  # a place in a list, or a key of a mapping
            continue
        annotation = model.model_fields[part].annotation
        model = next((a for a in getattr(annotation, "__args__", ()) if _is_model(a)), annotation)
        if not _is_model(model):
            return list(SPLITS)
    fields = model.model_fields.items()
    return [field.alias or key for key, field in fields if key != "folder"]


def _is_model(candidate: object) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
