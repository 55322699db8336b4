"""Carries weights from one study's layers to another's, by relative depth."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .._trials.search_space import EXPERT_MARK, Profile, layer_of


def carried(names: Sequence[str], others: Sequence[str]) -> tuple[Tensor, list[int]]:
    """Return how parameters of another study are read off this study's.

    Layers (see `layer_of`) cover an equal share of the depth each. A layer of the other study
    gets the mean weight of the layers here that cover its depth: of the profile of its name, or
    of all profiles if there is none of that name (whole layers there, attention and MLP here), but
    never of another expert's. A parameter that is no layer is the one of its name.

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
        if layer := layer_of(name):
            found.setdefault(layer[0], []).append((layer[1], name))
    return {profile: [name for _, name in sorted(pairs)] for profile, pairs in found.items()}


def _column(
    name: str,
    names: Sequence[str],
    here: Mapping[Profile, list[str]],
    there: Mapping[Profile, list[str]],
) -> Tensor | None:
    layer = layer_of(name)
    column = torch.zeros(len(names), dtype=torch.double)
    if layer is None:
        if name not in names:
            return None
        column[names.index(name)] = 1.0
        return column
    profile, members = layer[0], there[layer[0]]
    depth, n = members.index(name), len(members)
    sources = [here[profile]] if profile in here else _others(profile, here)
    for layers in sources:
        for place, other in enumerate(layers):
            low = max(place / len(layers), depth / n)
            high = min((place + 1) / len(layers), (depth + 1) / n)
            column[names.index(other)] += max(0.0, high - low)
    return column / column.sum() if sources else None


def _others(profile: Profile, here: Mapping[Profile, list[str]]) -> list[list[str]]:
    """Return the profiles that may stand for one that is not here; see `carried`."""
    expert = _expert_of(profile)
    return [
        layers
        for other, layers in here.items()
        if not expert or not _expert_of(other) or _expert_of(other) == expert
    ]


def _expert_of(profile: Profile) -> str:
    """Return the number of a profile's expert; nothing where there is one expert."""
    return profile[1].partition(EXPERT_MARK)[2]
