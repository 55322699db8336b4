"""A noisy bi-objective problem with a known noise-free truth."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume
from botorch.utils.multi_objective.pareto import is_non_dominated
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Preferences (w, 1 - w) of the users who pick one model each.
PREFERENCES = np.arange(0.05, 0.96, 0.05)


@dataclass(frozen=True)
class Measurement:
    """What one evaluation of 70 questions tells.

    Args:
        values: Two numbers, both to maximize.
        errors: Their standard errors.
        answers: What each question contributes to both values, where questions rotate.
    """

    values: Array
    errors: Array
    answers: Array | None = None


class Problem(ABC):
    """Weights in `[0, 1]^dim`; two objectives, both maximized.

    Args:
        name: Of the problem, in tables.
        dim: Number of weights.
        reference: Two numbers; points that do not beat both are worth nothing.
        importance: A `dim`-dim array in [0, 1]: what a user knows of the layers beforehand.
    """

    def __init__(self, name: str, dim: int, reference: Array, importance: Array) -> None:
        self.name, self.dim, self.reference = name, dim, reference
        self.importance = importance

    @abstractmethod
    def truth(self, X: torch.Tensor) -> torch.Tensor:
        """Return the noise-free values of an `n x dim`-dim tensor, `n x 2`-dim."""

    @abstractmethod
    def measure(
        self, x: Array, rng: np.random.Generator, hand: Sequence[int] | None = None
    ) -> Measurement:
        """Evaluate one candidate on 70 questions; on those of `hand` where they rotate."""

    @property
    def n_pool(self) -> int | None:
        """Questions that a search deals from; None where questions do not rotate."""
        return None

    @property
    def deal(self) -> int:
        """Which way its questions are dealt, where problems differ in nothing else."""
        return 0

    @property
    def names(self) -> list[str]:
        """The parameters' names."""
        return [f"layer_{index:03d}" for index in range(self.dim)]

    def named_importance(self) -> Mapping[str, float]:
        """Return the importance as the sampler takes it."""
        return dict(zip(self.names, self.importance.tolist(), strict=True))

    @cached_property
    def optima(self) -> Array:
        """True values of (nearly) optimal points, many along the front, an `n x 2`-dim array."""
        return _search_front(self)

    @cached_property
    def best_utilities(self) -> Array:
        """The best possible utility of every preference."""
        best: Array = utilities(self.optima, self.reference).max(axis=0)
        return best

    @cached_property
    def best_hypervolume(self) -> float:
        """The hypervolume of the optimal points."""
        return hypervolume(self.optima, self.reference)


def utilities(values: Array, reference: Array) -> Array:
    """Return `min_j (y_j - ref_j) / w_j` of every point and preference, `n x 19`-dim."""
    weights = np.stack([PREFERENCES, 1.0 - PREFERENCES], axis=1)
    utility: Array = ((values - reference)[:, None, :] / weights).min(axis=2)
    return utility


def hypervolume(values: Array, reference: Array) -> float:
    """Return the area that dominates the reference point."""
    tensor = torch.from_numpy(values)
    front = tensor[is_non_dominated(tensor)]
    return float(Hypervolume(torch.from_numpy(reference)).compute(front))


def _search_front(problem: Problem, n_weights: int = 57, n_starts: int = 6) -> Array:
    """Maximize the utilities of a fine grid of preferences by gradient ascent."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(0.03, 0.97, n_weights, dtype=torch.double)
    weights = torch.stack([grid, 1 - grid], dim=1).repeat(n_starts, 1)
    shape = (len(weights), problem.dim)
    logits = torch.randn(shape, generator=generator, dtype=torch.double).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    reference = torch.from_numpy(problem.reference)
    for step in range(800):
        scaled = (problem.truth(torch.sigmoid(logits)) - reference) / weights
        sharpness = 2.0 + 60.0 * step / 800
        loss = torch.logsumexp(-sharpness * scaled, dim=1).sum() / sharpness
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        values = problem.truth(torch.sigmoid(logits))
        return np.asarray(values[is_non_dominated(values)].numpy(), dtype=np.float64)
