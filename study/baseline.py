"""More of the uniform curve where it bends: it is what layer-wise candidates are compared with.

Eight merges spread over the weights may step over a bend in which the curve is best. What a search
gains over them is then owed to the curve's gaps, not to layers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from ..objectives.merging.settings import DENSITY
from .first_trials import first, is_uniform, search_space
from .spec.inputs import StudyInputs

# A gap counts for its values beyond what noise explains, in standard errors of the difference,
_NOISE = 2.0
# and for its weights: a flat quarter is looked into before a step of a tenth of the curve's range.
_FLAT = 0.4
# Decimals of a weight: closer merges are the same one.
_DIGITS = 4

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Baseline:
    """Halves the widest gap of the uniform curve until there are enough merges.

    Args:
        n: Uniform merges that the study shall have; the parents are not counted.
        merge: Uniform weight -> parameters of that merge.
        space: Of the parameters.
    """

    n: int
    merge: Callable[[float], Mapping[str, float]]
    space: Mapping[str, BaseDistribution]

    def next(self, trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
        """Return the next uniform merge, as a running trial without a number.

        Args:
            trials: All of the study.

        Returns:
            None once there are enough, or while fewer than two are measured.
        """
        curve = [trial for trial in trials if is_uniform(trial)]
        # One that failed counts: it may fail again, for ever.
        levels = {_level(t) for t in curve if t.user_attrs["phase"] == "uniform"}
        if len(levels) >= self.n:
            return None
        weight = self.space[next(name for name in self.space if name != DENSITY)]
        assert isinstance(weight, FloatDistribution), "no choices: see `check_joint`"
        level = widest_gap(curve, (weight.low, weight.high))
        if level is None:
            return None
        trial = first(self.space, self.merge(level), "uniform", f"uniform {level:.2f}")
        trial.state, trial.datetime_start = TrialState.RUNNING, datetime.now()
        return trial


def baseline_of(inputs: StudyInputs) -> Baseline | None:
    """Return who adds to the uniform curve, if the spec wants more of it than the start-up has."""
    n = inputs.spec.evaluation.baseline
    if n is None:
        return None
    return Baseline(n, inputs.plan.uniform, search_space(inputs.spec, inputs.plan))


def widest_gap(
    curve: Sequence[FrozenTrial], bounds: tuple[float, float] = (0.0, 1.0)
) -> float | None:
    """Return the middle of the widest gap between neighbours of a uniform curve.

    How wide a gap is: the distance of its ends' values beyond twice its standard error, each
    objective in units of the curve's range, and beside it the distance of their weights. What is
    being measured is believed to lie between its neighbours.

    Args:
        curve: Parents and uniform merges, finished or not.
        bounds: Of the weights; parents may lie beyond.

    Returns:
        A uniform weight; None if fewer than two are measured, or no gap is left.
    """
    levels = np.array([_level(trial) for trial in curve])
    done = np.array([trial.state == TrialState.COMPLETE for trial in curve], dtype=bool)
    if done.sum() < 2:
        return None
    order = levels[done].argsort()
    finished = [trial for trial in curve if trial.state == TrialState.COMPLETE]
    at = levels[done][order]
    values = np.array([trial.values for trial in finished], dtype=float)[order]
    errors = np.array([_errors(trial) for trial in finished], dtype=float)[order]
    span = np.maximum(np.ptp(values, axis=0), 1e-12)
    grid = np.unique(np.concatenate([levels.round(_DIGITS), at.round(_DIGITS)]))
    columns = [np.interp(grid, at, column) for column in (*(values / span).T, *(errors / span).T)]
    shape, noise = np.split(np.array(columns), 2)  # objectives x levels
    scored = []
    for left, right in pairwise(range(len(grid))):
        steps = np.abs(shape[:, right] - shape[:, left])
        clear = np.maximum(steps - _NOISE * np.hypot(noise[:, right], noise[:, left]), 0.0)
        weights = _FLAT * (grid[right] - grid[left]) / np.ptp(grid)
        middle = round(float(grid[left] + grid[right]) / 2, _DIGITS)
        if bounds[0] <= middle <= bounds[1] and middle not in (grid[left], grid[right]):
            scored.append((float(np.hypot(np.linalg.norm(clear), weights)), middle))
    return max(scored)[1] if scored else None


def _level(trial: FrozenTrial) -> float:
    return next(float(value) for name, value in trial.params.items() if name != DENSITY)


def _errors(trial: FrozenTrial) -> list[float]:
    known = trial.user_attrs.get("standard_errors")
    return list(known) if known else [0.0] * len(trial.values)
