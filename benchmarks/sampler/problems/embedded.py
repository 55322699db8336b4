"""ZDT and DTLZ problems of five variables, hidden among many that do nothing."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from .base import Array, Measurement, Problem

_N_RELEVANT = 5
_NOISE = 0.08  # standard deviation; the fronts are about one wide


class Embedded(Problem):
    """A test function of five of the variables, with normal noise.

    Args:
        function: Name in `FUNCTIONS`.
        seed: Decides which variables matter, and how well the importance knows them.
        dim: Number of variables.
    """

    def __init__(self, function: str, seed: int, dim: int = 36) -> None:
        rng = np.random.default_rng([11, seed])
        self._function, self._reference_offset = FUNCTIONS[function]
        self._relevant = torch.from_numpy(rng.choice(dim, size=_N_RELEVANT, replace=False))
        importance = rng.uniform(0.0, 0.4, size=dim)
        importance[self._relevant.numpy()] = rng.uniform(0.5, 1.0, size=_N_RELEVANT)
        super().__init__(function, dim, np.array(self._reference_offset), importance)

    def truth(self, X: Tensor) -> Tensor:
        """Return the negated test function: it is defined for minimization."""
        return -self._function(X[..., self._relevant])

    def measure(
        self, x: Array, rng: np.random.Generator, hand: Sequence[int] | None = None
    ) -> Measurement:
        """Add normal noise of known deviation."""
        with torch.no_grad():
            values = self.truth(torch.from_numpy(x)[None])[0].numpy()
        return Measurement(values + _NOISE * rng.normal(size=2), np.full(2, _NOISE))


def _zdt1(Z: Tensor) -> Tensor:
    g = 1 + 3 * Z[..., 1:].mean(dim=-1)
    return torch.stack([Z[..., 0], g * (1 - ((Z[..., 0] + 1e-9) / g).sqrt())], dim=-1)


def _zdt2(Z: Tensor) -> Tensor:
    g = 1 + 3 * Z[..., 1:].mean(dim=-1)
    return torch.stack([Z[..., 0], g * (1 - (Z[..., 0] / g).square())], dim=-1)


def _dtlz2(Z: Tensor) -> Tensor:
    g = (Z[..., 1:] - 0.5).square().sum(dim=-1)
    angle = Z[..., 0] * math.pi / 2
    return torch.stack([(1 + g) * angle.cos(), (1 + g) * angle.sin()], dim=-1)


# Name -> function to minimize (of five variables in [0, 1]), reference point to maximize.
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], tuple[float, float]]] = {
    "zdt1": (_zdt1, (-1.2, -1.8)),
    "zdt2": (_zdt2, (-1.2, -1.8)),
    "dtlz2": (_dtlz2, (-1.3, -1.3)),
}
