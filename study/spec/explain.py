"""Pydantic's complaints about a spec, as one line that names the key, the value and the rule."""

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ...objectives.evaluation import SPLITS


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first of pydantic's complaints as one line, and how many more there are.

    Args:
        error: Of the validation.
        model: What was validated.
    """
    details = error.errors(include_url=False)
    # A misspelt key may be missing elsewhere: the misspelling says more.
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return _explain_one(details[0], model) + more


def _explain_one(detail: ErrorDetails, model: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(detail["loc"][:-1], model)
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
        return f"unknown key {place!r}; {hint}"
    if detail["type"] == "missing":
        return f"{place!r} is missing; add it."
    message = detail["msg"].removeprefix("Value error, ").removesuffix(".")
    shown = "" if detail["type"] == "value_error" else f", but got {detail['input']!r:.60}"
    return f"{place + ': ' if place else ''}{message}{shown}."


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
