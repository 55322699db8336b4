"""Trials to points of the unit cube and back.

Everything inside the samplers lives in the cube `[0, 1]^d` over the distributions' own bounds,
which never move with the data, and is maximized.
"""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from torch import Tensor

_NUMBERED = re.compile(r"(\D*)(\d+)(.*)")
# Behind it is the number of the expert whose weight a parameter is, where there are several.
EXPERT_MARK = "@"
# What the parameters of a profile of layers are called before and behind the layer's number.
Profile = tuple[str, str]


def uniform_levels(n: int) -> list[float]:
    """Return `n` levels from 0 to 1, evenly spaced, both ends first.

    The ends are the parents. The rest is ordered so that any first part of it is spread out:
    `uniform_levels(5) == [0.0, 1.0, 0.5, 0.25, 0.75]`.
    """
    if n <= 2:
        return [0.0, 1.0][:n]
    grid = [i / (n - 1) for i in range(n)]
    levels, rest = [0.0, 1.0], grid[1:-1]
    while rest:
        farthest = max(rest, key=lambda u: (round(min(abs(u - v) for v in levels), 9), -u))
        levels.append(farthest)
        rest.remove(farthest)
    return levels


class UnitCube:
    """The bijection between parameters and points of the unit cube.

    Categorical parameters take one column a choice (one-hot).

    Args:
        search_space: Distribution of every parameter, not empty.
    """

    def __init__(self, search_space: Mapping[str, BaseDistribution]) -> None:
        self.search_space = dict(search_space)
        self._transform = _SearchSpaceTransform(self.search_space, transform_0_1=True)
        # Numbers as they are, as weights are: thousands of trials are encoded at once.
        self._is_plain = all(_is_plain(d) for d in self.search_space.values())

    @property
    def dim(self) -> int:
        """Number of columns."""
        return len(self._transform.bounds)

    @property
    def column_names(self) -> list[str]:
        """For every column, the parameter that it encodes."""
        names = list(self.search_space)
        return [names[i] for i in self._transform.encoded_column_to_column]

    @property
    def categorical_columns(self) -> list[int]:
        """Columns that encode a choice."""
        return [
            i
            for i, name in enumerate(self.column_names)
            if isinstance(self.search_space[name], CategoricalDistribution)
        ]

    @property
    def choices(self) -> Tensor:
        """The same as a tensor of indices."""
        return torch.tensor(self.categorical_columns, dtype=torch.long)

    @property
    def jumps(self) -> Tensor:
        """Return the pairs of columns that are neighbours in depth; see `neighbours`."""
        return neighbours(self.column_names, self.categorical_columns)

    def covers(self, params: Mapping[str, Any]) -> bool:
        """Whether a trial has a value for every parameter of the space."""
        return self.search_space.keys() <= params.keys()

    def holds(self, params: Mapping[str, Any]) -> bool:
        """Whether `encode` can place a trial: it covers the space with values of the right kind.

        Numbers outside the bounds are places, too; an unknown choice or None is none.
        """
        if not self.covers(params):
            return False
        if self._is_plain and {type(params[name]) for name in self.search_space} == {float}:
            return all(map(math.isfinite, (params[name] for name in self.search_space)))
        return all(_is_place(d, params[name]) for name, d in self.search_space.items())

    def snapped(self, points: Tensor) -> Tensor:
        """Return the points that can be proposed nearest to given ones, `n x d`-dim.

        Choices, integers and steps are not climbed: an ascent ends between them.
        """
        if not self.stepped_columns:
            return points
        return self.encode([self.decode(point) for point in points.numpy()])

    @property
    def stepped_columns(self) -> list[int]:
        """Columns of choices, integers and steps: not every number is a place."""
        return [
            column
            for column, name in enumerate(self.column_names)
            if not isinstance(d := self.search_space[name], FloatDistribution)
            or d.step is not None
        ]

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> Tensor:
        """Return an `n x d`-dim tensor; rows outside the bounds land outside the cube."""
        names = list(self.search_space)
        if self._is_plain:
            low, high = _SearchSpaceTransform(self.search_space).bounds.T
            points = _as_array([[row[k] for k in names] for row in rows], self.dim)
            points = (points - low) / (high - low)
        else:
            transform = self._transform.transform
            points = _as_array([transform({k: row[k] for k in names}) for row in rows], self.dim)
        return torch.from_numpy(points)

    def encode_known(self, params: Mapping[str, Any]) -> Tensor:
        """Return the columns of some parameters, a `d`-dim tensor; NaN in all others."""
        known = {name: d for name, d in self.search_space.items() if name in params}
        values = iter(UnitCube(known).encode([params])[0].tolist() if known else ())
        row = [next(values) if name in known else torch.nan for name in self.column_names]
        return torch.tensor(row, dtype=torch.double)

    def decode(self, point: NDArray[np.float64]) -> dict[str, Any]:
        """Return the parameters at a `d`-dim point, as Python numbers within their bounds."""
        clipped = np.clip(point, 0.0, 1.0)
        params = self._transform.untransform(clipped)
        return {name: self._exact(name, value, clipped) for name, value in params.items()}

    def _exact(self, name: str, value: Any, point: NDArray[np.float64]) -> Any:
        """Return Python's own types, and the upper bound itself where the point is on it.

        Optuna's transform stays one float below the bound, but the expert has weight 1.
        """
        distribution = self.search_space[name]
        if not isinstance(distribution, FloatDistribution):
            return value
        column = self.column_names.index(name)
        on_bound = distribution.step is None and point[column] == 1.0
        return distribution.high if on_bound else float(value)


def neighbours(names: Sequence[str], choices: Sequence[int] = ()) -> Tensor:
    """Return the pairs of columns that are neighbours in depth, a `2 x p`-dim tensor.

    See `layer_of`; three layers at least make a profile.

    Args:
        names: For every column, the parameter that it encodes.
        choices: Columns that encode a choice.
    """
    profiles: dict[Profile, list[tuple[int, int]]] = {}
    for column, name in enumerate(names):
        if column not in choices and (layer := layer_of(name)):
            profiles.setdefault(layer[0], []).append((layer[1], column))
    ordered = [[c for _, c in sorted(p)] for p in profiles.values() if len(p) > 2]
    pairs = [pair for columns in ordered for pair in pairwise(columns)]
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T


def layer_of(name: str) -> tuple[Profile, int] | None:
    """Return the profile of layers that a parameter belongs to and its number; None without one.

    Parameters whose names differ in their first number alone ("layer_000.mlp", "layer_001.mlp")
    are layers, in the order of that number. Further numbers tell profiles apart: those of experts
    ("layer_000@2") and of heads are no depth. A parameter with an expert's number alone
    ("uniform@2") is no layer.
    """
    own, mark, expert = name.partition(EXPERT_MARK)
    match = _NUMBERED.fullmatch(own)
    return ((match[1], f"{match[3]}{mark}{expert}"), int(match[2])) if match else None


def _as_array(rows: Sequence[Any], dim: int) -> NDArray[np.float64]:
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), dim)


def _is_plain(distribution: BaseDistribution) -> bool:
    return (
        isinstance(distribution, FloatDistribution)
        and not distribution.log
        and not distribution.single()
        and distribution.step is None
    )


def _is_place(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return bool(np.isfinite(distribution.to_internal_repr(value)))
    except (OverflowError, TypeError, ValueError):
        return False


def is_of_kind(value: Any, distribution: BaseDistribution) -> bool:
    """Whether a value is one of a parameter's choices, or a number, perhaps out of its bounds."""
    if isinstance(distribution, CategoricalDistribution):
        return _is_place(distribution, value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and _is_place(distribution, value)


def fits(value: Any, distribution: BaseDistribution) -> bool:
    """Whether a parameter can have a value: one of its choices, or a number within its bounds."""
    if not is_of_kind(value, distribution):
        return False
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def signs(directions: Sequence[StudyDirection]) -> Tensor:
    """Return an `m`-dim tensor that turns values into quantities to maximize."""
    flips = [-1.0 if d == StudyDirection.MINIMIZE else 1.0 for d in directions]
    return torch.tensor(flips, dtype=torch.double)
