"""How mistakes in a spec are told: the key, the rule and the value, in one line."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ...objectives.evaluation import SPLITS
from .base import PATTERNS, near_hint, without_credentials

# Complaints that are told in full.
_MOST = 3
# How pydantic calls the kinds that a value may have, in the place of a complaint about each.
_KIND = re.compile(
    r"<.*>|bool|int|float|str|constrained-\w+|(literal|list|dict|tuple|union|nullable|function-\w+)\[.*\]"
)
# How pydantic marks that a key of a mapping is wrong, and not its value.
_KEY = "[key]"
# What a value of another kind is told, by the beginning of pydantic's name of the mistake.
_RULES = {
    "int_": "an integer",
    "float_": "a number",
    "bool_": "true or false",
    "string_": "a text",
    "list_": "a list",
    "tuple_": "a list",
    "dict_": "a mapping",
}


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """Return pydantic's complaints as one line: a few of them, and how many more there are.

    Each names the key, the value and the rule.

    Args:
        error: Of the validation.
        model: What was validated.
    """
    details = error.errors(include_url=False)
    # A misspelt key may be missing elsewhere: the misspelling says more.
    details.sort(key=lambda detail: detail["type"] != "extra_forbidden")
    told = list(dict.fromkeys(_told(details, model)))
    more = f" (and {len(told) - _MOST} more)" if len(told) > _MOST else ""
    return " ".join(told[:_MOST]) + more


def _told(details: Iterable[ErrorDetails], model: type[BaseModel]) -> Iterator[str]:
    """Yield a sentence for each complaint, and one for all kinds that one value may have."""
    groups: dict[Any, list[ErrorDetails]] = {}
    for place, detail in enumerate(details):
        kind = _first_kind(detail)
        key = place if kind is None else detail["loc"][:kind]
        groups.setdefault(key, []).append(detail)
    for group in groups.values():
        if _first_kind(group[0]) is None:
            yield _explain_one(group[0], model)
        else:
            yield from _told_of_kinds(group, model)


def _told_of_kinds(group: list[ErrorDetails], model: type[BaseModel]) -> Iterator[str]:
    """Yield what one value is told that may be of several kinds, and is right in none."""
    details = [_without_kind(detail) for detail in group]
    if len({_kind_of(detail) for detail in group}) > 1:
        details = _meant(details)
        wanted = [_kind_wanted(detail) for detail in details]
        if None not in wanted and len({detail["loc"] for detail in details}) == 1:
            *most, last = dict.fromkeys(map(str, wanted))
            rule = f"{', '.join(most)} or {last}" if most else last
            yield f"{_place(details[0])}: must be {rule}, {_given(details[0])}."
            return
    yield from _told(details, model)


def _meant(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Return the complaints of the kinds that were meant: whose parts are wrong, or the amount."""
    depth = max(len(detail["loc"]) for detail in details)
    deep = [detail for detail in details if len(detail["loc"]) == depth]
    if len(deep) < len(details):
        return deep
    return [detail for detail in details if _kind_wanted(detail) is None] or details


def _first_kind(detail: ErrorDetails) -> int | None:
    """Return where the place of a complaint names a kind, which users write nowhere."""
    parts = enumerate(detail["loc"])
    return next((n for n, part in parts if n and _KIND.fullmatch(str(part))), None)


def _kind_of(detail: ErrorDetails) -> str:
    place = _first_kind(detail)
    assert place is not None
    return str(detail["loc"][place])


def _without_kind(detail: ErrorDetails) -> ErrorDetails:
    kind = _first_kind(detail)
    assert kind is not None
    return {**detail, "loc": (*detail["loc"][:kind], *detail["loc"][kind + 1 :])}


def _kind_wanted(detail: ErrorDetails) -> str | None:
    """Return which kind a value should be of; None if it is of that kind, and wrong otherwise."""
    if detail["type"] == "literal_error":
        return str(detail["ctx"]["expected"])
    if detail["type"].endswith(("_type", "_parsing", "_from_float")):
        return next((rule for of, rule in _RULES.items() if detail["type"].startswith(of)), None)
    return None


def _place(detail: ErrorDetails) -> str:
    parts = map(str, [part for part in detail["loc"] if part != _KEY])
    return without_credentials(".".join(parts))


def _given(detail: ErrorDetails) -> str:
    """Return what was given; it may be a storage's URL, in whatever place, and its password."""
    return f"but got {without_credentials(repr(detail['input'])):.60}"


def _explain_one(detail: ErrorDetails, model: type[BaseModel]) -> str:
    place, given = _place(detail), _given(detail)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(detail["loc"][:-1], model)
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
        return f"unknown key {place!r}; {hint}"
    if detail["type"] == "missing" and isinstance(detail["loc"][-1], int):
        whole = _place({**detail, "loc": detail["loc"][:-1]})
        return f"{whole}: must have at least {detail['loc'][-1] + 1} items, {given}."
    if detail["type"] == "missing":
        return f"{place!r} is missing; add it."
    if detail["type"] in ("model_type", "model_attributes_type"):
        keys = ", ".join(_known_keys(detail["loc"], model))
        return f"{place} must be a mapping with the keys {keys}, {given}."
    if detail["type"] == "literal_error":
        return f"{place}: {_choice(detail)}"
    message = rule_of(detail)
    shown = "" if detail["type"] == "value_error" else f", {given}"
    end = "" if message.endswith("?") and not shown else "."
    return f"{place + ': ' if place else ''}{message}{shown}{end}"


def rule_of(detail: ErrorDetails) -> str:
    """Return what a value must be, without the value and a full stop."""
    if (kind := _kind_wanted(detail)) is not None:
        return f"must be {kind}"
    limits = detail.get("ctx", {})
    if detail["type"] == "string_too_short":
        return "must not be empty"
    if detail["type"] == "string_pattern_mismatch":
        return PATTERNS[limits["pattern"]]
    if detail["type"] in ("too_short", "too_long"):
        least = detail["type"] == "too_short"
        n = limits["min_length" if least else "max_length"]
        return f"must have at {'least' if least else 'most'} {n} item{'s' * (n != 1)}"
    message = detail["msg"].removeprefix("Value error, ").removesuffix(".")
    return re.sub(r"^(Input|String) should ", "must ", message)


def _choice(detail: ErrorDetails) -> str:
    """Return what a value may be, and which of it is near."""
    expected = detail.get("ctx", {})["expected"]
    choices = re.findall(r"'([^']*)'", expected)
    hint = near_hint(str(detail["input"]), choices)
    return f"must be one of {', '.join(choices) or expected}, {_given(detail)}{hint}"


def _known_keys(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """Return the keys of the section at `location`, found by walking the models' annotations."""
    model: Any = root
    for part in location:
        if part not in model.model_fields:  # a place in a list, or a key of a mapping
            continue
        annotation = model.model_fields[part].annotation
        model = next(_models_in(annotation), annotation)
        if not _is_model(model):
            return list(SPLITS)
    fields = model.model_fields.items()
    return [field.alias or key for key, field in fields if key != "folder"]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation is made of."""
    if _is_model(annotation):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)


def _is_model(candidate: object) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
