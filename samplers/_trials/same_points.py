"""Points that are one, such as the base under every operator, in one place of the cube."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from optuna.distributions import BaseDistribution
from torch import Tensor

from .search_space import UnitCube

# What points have in common that are all one, and the parameters that stand for them.
Pair = tuple[Mapping[str, Any], Mapping[str, Any]]
# In the unit cube: what is so near to a parent is one.
_EXACT = 1e-9


class SamePoints:
    """Which points are one.

    Args:
        same: Pairs; see `Pair`.

    Raises:
        ValueError: If one of them is no pair, or says nothing.
    """

    def __init__(self, same: Sequence[Pair]) -> None:
        self._pairs = [_pair(entry) for entry in same]
        self._space: Mapping[str, BaseDistribution] | None = None
        self._rows: list[tuple[Tensor, Tensor]] = []

    @property
    def parts(self) -> list[dict[str, Any]]:
        """Both parts of every pair."""
        return [part for pair in self._pairs for part in pair]

    def joined(self, cube: UnitCube, points: Tensor) -> Tensor:
        """Return points with those that are one in one place, an `n x d`-dim tensor.

        A pair says nothing in a cube that lacks what its points have in common: others would be
        taken for them.

        Args:
            cube: Over the search space.
            points: An `n x d`-dim tensor.
        """
        for wanted, place in self._of(cube):
            is_it = (wanted.isnan() | ((points - wanted).abs() < _EXACT)).all(dim=1)
            points = torch.where(is_it[:, None] & ~place.isnan(), place, points)
        return points

    def _of(self, cube: UnitCube) -> list[tuple[Tensor, Tensor]]:
        """Return the pairs in a cube, made once: each proposal asks for every arm."""
        if self._space != cube.search_space:
            known = cube.search_space.keys()
            pairs = [pair for pair in self._pairs if pair[0].keys() <= known]
            self._rows = [(cube.encode_known(a), cube.encode_known(b)) for a, b in pairs]
            self._space = cube.search_space
        return self._rows


def _pair(entry: Pair) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        common, whole = map(dict, entry)
    except (TypeError, ValueError):
        common, whole = {}, {}
    if not (common and whole):
        raise ValueError(
            "`same` must hold pairs: parameters that points have in common and those that stand "
            f"for them, each name -> value, but got {entry!r}."
        )
    return common, whole
