"""Constraints as processes of their own: how likely a point keeps to all of them.

Constraints are Optuna's: `trial.constraints`, kept where they are at most 0. Their standard
errors are read from `trial.user_attrs["constraint_errors"]`, by name; a constraint that any trial
has without one gets an inferred noise level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from botorch.acquisition import AcquisitionFunction
from optuna.trial import FrozenTrial
from torch import Tensor

from ._gp import MOST_POINTS, Observations, Surrogate, fit_surrogate, spread_rows
from ._trials.magnitude import LARGEST
from ._trials.measurements import error_or_nan, filled, screened_trials
from ._trials.search_space import UnitCube

# A trial is believed to keep to its constraints if that is likelier than not.
LIKELY = 0.5
# Log probability of the most feasible point below which nothing is near being feasible.
_HOPELESS = -7.0
# Logarithm of how much the known points may differ in weight where none is feasible.
_MOST_HOPE = 20.0
# PyTorch's gradient of `log_ndtr` is wrong by more than 1 % below.
_FAR = -1e7


@dataclass(frozen=True)
class Feasibility:
    """What is known about the constraints.

    Args:
        margins: One a constraint, of one process each: by how much it is kept.
        rows: For each of them, which trials it was fitted to.
    """

    margins: tuple[Surrogate, ...]
    rows: tuple[Tensor, ...]

    def knowing(self, trials: Tensor, most: int) -> "Feasibility":
        """Condition on given trials, and on others evenly spaced.

        Args:
            trials: Indices of the former.
            most: How many of the latter.
        """
        margins = []
        for margin, rows in zip(self.margins, self.rows, strict=True):
            given = torch.isin(rows, trials).nonzero().flatten()
            known = torch.cat([spread_rows(len(rows), most), given]).unique()
            margins.append(margin.restricted(known))
        return replace(self, margins=tuple(margins))

    def probability(self, X: Tensor) -> Tensor:
        """Return how likely each point keeps to all constraints, taken as independent.

        Args:
            X: An `n x d`-dim tensor in the unit cube.
        """
        return self.log_probability(X).exp()

    def log_probability(self, X: Tensor) -> Tensor:
        """Return the logarithm of `probability`; finite however far a constraint is violated."""
        logarithm = torch.zeros(len(X), dtype=torch.double)
        for surrogate in self.margins:
            mean, deviation = surrogate.posterior(X)
            logarithm = logarithm + _log_ndtr((mean / deviation)[:, 0])
        return logarithm

    def allows(self, X: Tensor) -> Tensor:
        """Return whether each point probably keeps to all constraints, `n`-dim."""
        return self.probability(X) >= LIKELY

    def likely(self, X: Tensor) -> Tensor:
        """Return the same as `allows`; where it allows none, all count as allowed."""
        likely = self.allows(X)
        return likely if likely.any() else torch.ones_like(likely)


def _log_ndtr(z: Tensor) -> Tensor:
    """Return the logarithm of the normal distribution function, with a gradient everywhere.

    PyTorch's own gradient is wrong far out, and infinite from -1e12 on: a limit in bytes that all
    candidates break by as much is there. Its first term is exact to the last digit.
    """
    far = z < _FAR
    tail = -0.5 * z * z
    # The branch not taken must have a gradient, too: 0 times infinity is no number.
    return torch.where(far, tail, torch.special.log_ndtr(torch.where(far, _FAR, z)))


def fit_feasibility(
    trials: Sequence[FrozenTrial],
    observations: Observations,
    cube: UnitCube | None = None,
    among: Sequence[FrozenTrial] = (),
    most: int = MOST_POINTS,
) -> Feasibility:
    """Fit one process a constraint, to the trials that have it.

    Args:
        trials: Measured.
        observations: Of the same trials in the same order.
        cube: Of the observations; needed for trials that were screened.
        among: All trials: those that were screened tell of constraints alone.
        most: See `fit_surrogate`.
    """
    X, whole = observations.X, list(trials)
    if cube is not None and (extra := screened_trials(among, cube.search_space)):
        X = torch.cat([X, cube.encode([trial.params for trial in extra])])
        whole += extra
    names = sorted({name for trial in whole for name in trial.constraints if _has(trial, name)})
    rows = [[row for row, trial in enumerate(whole) if _has(trial, name)] for name in names]
    pairs = zip(names, rows, strict=True)
    margins = tuple(
        fit_surrogate(_margins(name, whole, X, observations, kept), most=most)
        for name, kept in pairs
    )
    return Feasibility(margins, tuple(torch.tensor(kept) for kept in rows))


def _margins(
    name: str, trials: Sequence[FrozenTrial], X: Tensor, known: Observations, rows: list[int]
) -> Observations:
    margins = [[-trials[row].constraints[name]] for row in rows]
    told = torch.tensor([_told(trials[row], name) for row in rows], dtype=torch.double)
    errors = filled(told)[:, None]
    Y = torch.tensor(margins, dtype=torch.double)
    # Infinite margins, and those beyond reckoning, are as good as large ones.
    finite = Y[Y.abs() <= LARGEST]
    bound = 2.0 * float(finite.abs().max()) + 1.0 if len(finite) else 1.0
    margins_only = replace(known, importance=None, sizes=None, hints=())
    return replace(margins_only, X=X[rows], Y=Y.clamp(-bound, bound), errors=errors)


def _has(trial: FrozenTrial, name: str) -> bool:
    """Whether a trial says by how much a constraint is violated; NaN says nothing."""
    return not math.isnan(trial.constraints.get(name, math.nan))


def _told(trial: FrozenTrial, name: str) -> float:
    errors = trial.user_attrs.get("constraint_errors")
    return error_or_nan(errors.get(name) if isinstance(errors, dict) else None)


class Weighted(AcquisitionFunction):
    """An acquisition function times the probability that a point keeps to all constraints.

    As in constrained expected improvement (Gardner et al. 2014).

    Args:
        acquisition: To be weighted.
        feasibility: Of the points.
        is_log: Whether it is a logarithm.
        X: Known points. Where none of them is feasible, weights are relative to the most feasible
            and on a scale on which they differ: a search to which all are the same 0 would not
            find its way.
    """

    def __init__(
        self,
        acquisition: AcquisitionFunction,
        feasibility: Feasibility,
        is_log: bool,
        X: Tensor,
    ) -> None:
        super().__init__(acquisition.model)
        self._acquisition, self._feasibility, self._is_log = acquisition, feasibility, is_log
        known = feasibility.log_probability(X)
        self._origin, self._temper = 0.0, 1.0
        if known.max() < _HOPELESS:
            self._origin = float(known.max())
            self._temper = min(1.0, _MOST_HOPE / max(float(known.max() - known.min()), 1e-9))

    def forward(self, X: Tensor) -> Tensor:
        """Score a `b x 1 x d`-dim tensor, `b`-dim."""
        value: Tensor = self._acquisition(X)
        logarithm = self._feasibility.log_probability(X.squeeze(-2)) - self._origin
        logarithm = self._temper * logarithm
        if self._is_log:
            return value + logarithm
        weight = logarithm.clamp_max(_MOST_HOPE).exp()
        # A gain may be slightly negative: then, too, the likelier point is the better one.
        return torch.where(value > 0, value * weight, value * (2.0 - weight.clamp_max(1.0)))
