"""MOEA/D with CMA-ES: the published evolutionary baseline of layer-wise merging."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from ._acqf import preference_grid
from ._cube_sampler import CubeSampler
from ._trials.search_space import UnitCube, signs

if TYPE_CHECKING:
    import cmaes

_STEP = 0.3  # CMA-ES's initial step in the unit cube: it should reach a third of it
_POPULATION = 6
_N_SUBPROBLEMS = 6
_N_NEIGHBOURS = 3

Array = NDArray[np.float64]


class MoeadCmaesSampler(CubeSampler):
    """Decomposes the front into preferences; each has a CMA-ES of its own (library `cmaes`).

    MOEA/D (Zhang & Li 2007) with the Chebyshev decomposition between the best and the worst
    value of every objective. Trial `n` belongs to preference `n mod 6` (of 6 for two
    objectives, 12 for three); a preference's CMA-ES
    learns from its own trials and its neighbours', in generations of six, replayed from the
    study at every proposal, so workers share it and restarts continue it. It ignores noise.

    Args:
        n_startup_trials: Sobol points before. Defaults to 8.
        seed: See `SIPSampler`.
        search_space: See `SIPSampler`.
    """

    def __init__(
        self,
        *,
        n_startup_trials: int = 8,
        seed: int | None = None,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> None:
        super().__init__(n_startup_trials, "sobol", seed, search_space)

    def _model_point(
        self,
        study: Study,
        number: int,
        cube: UnitCube,
        measured: list[FrozenTrial],
        pending: list[dict[str, Any]],
        given: Mapping[str, Any],
    ) -> Array:
        X = cube.encode([trial.params for trial in measured]).numpy().clip(0.0, 1.0)
        values = torch.tensor([trial.values for trial in measured]).double()
        costs = _costs((values * signs(study.directions)).numpy())
        k = number % costs.shape[1]
        groups = np.array([trial.number % costs.shape[1] for trial in measured])
        near = np.isin(groups, _neighbours(k, preference_grid(values.shape[1], _N_SUBPROBLEMS)))
        seed = int(self._rng(number).integers(2**31))
        search = _replayed(X, costs[:, k], near, seed)
        point: Array = np.round(search.ask().clip(0.0, 1.0), 4)
        return point


def _neighbours(k: int, preferences: torch.Tensor) -> NDArray[np.int64]:
    """Return a preference and the two nearest to it.

    Args:
        k: Its number.
        preferences: A `w x m`-dim tensor.
    """
    distances = (preferences - preferences[k]).norm(dim=1)
    nearest: NDArray[np.int64] = distances.argsort(stable=True)[:_N_NEIGHBOURS].numpy()
    return nearest


def _costs(values: Array) -> Array:
    """Return the Chebyshev cost of every trial and preference, `n x k`-dim.

    Args:
        values: An `n x m`-dim array to maximize.
    """
    best, span = values.max(axis=0), np.ptp(values, axis=0)
    lost = (best - values) / np.where(span > 0, span, 1.0)
    weights = preference_grid(values.shape[1], _N_SUBPROBLEMS).numpy()
    costs: Array = (lost[:, None, :] * weights).max(axis=2)
    return costs


def _replayed(X: Array, costs: Array, near: NDArray[np.bool_], seed: int) -> "cmaes.CMA":
    """Return a CMA-ES that starts at the best of the first trials and has seen the rest."""
    import cmaes  # only here: the other samplers work without it

    first = int(costs[:_POPULATION].argmin())
    bounds = np.tile([0.0, 1.0], (X.shape[1], 1))
    search = cmaes.CMA(
        mean=X[first], sigma=_STEP, bounds=bounds, seed=seed, population_size=_POPULATION
    )
    rows = np.flatnonzero(near)
    for start in range(0, len(rows) - _POPULATION + 1, _POPULATION):
        generation = rows[start : start + _POPULATION]
        search.tell([(X[row], float(costs[row])) for row in generation])
    return search
