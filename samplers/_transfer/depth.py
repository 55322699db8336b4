"""Carries weights from one study's layers to another's, by relative depth."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)")
# What a numbered parameter is called but for its number.
Profile = tuple[str, str]


def carried(names: Sequence[str], others: Sequence[str]) -> tuple[Tensor, list[int]]:
    """Return how parameters of another study are read off this study's.

    Parameters whose names differ in one number alone are layers in the order of that number; each
    covers an equal share of the depth. A layer of the other study gets the mean weight of the
    layers here that cover its depth: of the profile of its name, or of all profiles if there is
    none of that name (whole layers there, attention and MLP here). A parameter without a number is
    the one of its name.

    Args:
        names: This study's parameters, `d`.
        others: The other study's.

    Returns:
        A `d x e`-dim tensor whose columns sum to 1, and the indices in `others` of its `e`
        columns: those that have a counterpart.
    """
    here, there = profiles(names), profiles(others)
    columns, kept = [], []
    for index, name in enumerate(others):
        column = _column(name, names, here, there)
        if column is not None:
            columns.append(column)
            kept.append(index)
    if not columns:
        return torch.zeros((len(names), 0), dtype=torch.double), []
    return torch.stack(columns, dim=1), kept


def profiles(names: Sequence[str]) -> dict[Profile, list[str]]:
    """Return the numbered parameters in order of depth, by what else they are called."""
    found: dict[Profile, list[tuple[int, str]]] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            stem, number, rest = match.groups()
            found.setdefault((stem, rest), []).append((int(number), name))
    return {profile: [name for _, name in sorted(pairs)] for profile, pairs in found.items()}


def _column(
    name: str,
    names: Sequence[str],
    here: Mapping[Profile, list[str]],
    there: Mapping[Profile, list[str]],
) -> Tensor | None:
    match = _NUMBERED.fullmatch(name)
    column = torch.zeros(len(names), dtype=torch.double)
    if match is None:
        if name not in names:
            return None
        column[names.index(name)] = 1.0
        return column
    profile = (match.group(1), match.group(3))
    members = there[profile]
    depth, n = members.index(name), len(members)
    sources = [here[profile]] if profile in here else list(here.values())
    for layers in sources:
        for place, layer in enumerate(layers):
            low = max(place / len(layers), depth / n)
            high = min((place + 1) / len(layers), (depth + 1) / n)
            column[names.index(layer)] += max(0.0, high - low)
    return column / column.sum() if sources else None
