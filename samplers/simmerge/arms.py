"""Features of merges for a bandit over them, from similarity signals."""

from collections.abc import Sequence

import numpy as np

from .examples import Merge, shared_features
from .regressors import Array

_CONSTANT = 1e-9


class ArmFeatures:
    """Leading principal components of the signals, apart for each operator.

    A linear bandit learns one number a feature from few rewards: a hundred correlated signals
    are too many, their leading directions are not.

    Args:
        merges: To learn the directions from; no outcomes are needed.
        operators: Each has its own slopes.
        n_components: Directions.

    Raises:
        ValueError: If there are no merges.
    """

    def __init__(
        self, merges: Sequence[Merge], operators: Sequence[str], n_components: int = 6
    ) -> None:
        if not merges:
            raise ValueError("At least one merge must be there to learn directions from.")
        self._operators = list(operators)
        names = shared_features(merges)
        rows = np.array([[merge.features[name] for name in names] for merge in merges])
        spread = rows.std(axis=0)
        self._names = [name for name, s in zip(names, spread, strict=True) if s > _CONSTANT]
        kept = spread > _CONSTANT
        self._center, self._spread = rows.mean(axis=0)[kept], spread[kept]
        scaled = (rows[:, kept] - self._center) / self._spread
        _, values, directions = np.linalg.svd(scaled, full_matrices=False)
        n = min(n_components, int((values > _CONSTANT).sum()))
        self._directions: Array = directions[:n]
        # Components of one scale: how much a direction varies says nothing about its use.
        self._scale = np.maximum(values[:n], _CONSTANT) / np.sqrt(len(merges))

    @property
    def dim(self) -> int:
        """Length of an arm's features."""
        return len(self._operators) * (1 + len(self._directions))

    def __call__(self, merge: Merge) -> Array:
        """Return a merge's features, zero where they belong to another operator."""
        values = np.array([merge.features[name] for name in self._names])
        components = self._directions @ ((values - self._center) / self._spread) / self._scale
        own = np.concatenate([[1.0], components]) / np.sqrt(1 + len(components))
        row = np.zeros(self.dim)
        place = self._operators.index(merge.operator) * len(own)
        row[place : place + len(own)] = own
        return row
