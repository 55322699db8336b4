"""How much sooner one way of searching reaches the regret of another, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Regret after the end of each evaluation: (seconds, regret), in the order of time.
Curve = Sequence[tuple[float, float]]
_Floats = NDArray[np.float64]

_FACTORS = (1.0, 1.1, 1.3)
_RESAMPLES, _LEVEL = 2000, 0.9
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Ratio:
    """Time to a mean regret, late by soon.

    Args:
        goal: The regret.
        value: Of the ratio, above 1 where the first way is faster.
        low: End of a 90 % interval, by resampling the runs in pairs.
        high: Its other end.
    """

    goal: float
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] at {self.goal:.3f}"


class _Steps:
    """Regrets of runs at every moment at which one of them improves."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        self.moments: _Floats = np.unique([seconds for curve in curves for seconds, _ in curve])
        self.regrets = np.stack([self._at_moments(curve) for curve in curves])

    def _at_moments(self, curve: Curve) -> _Floats:
        seconds, regrets = np.array(curve).T
        done = np.searchsorted(seconds, self.moments, side="right")
        return np.concatenate([[1.0], regrets])[done]

    def mean(self, runs: NDArray[np.intp]) -> _Floats:
        means: _Floats = self.regrets[runs].mean(axis=0)
        return means

    def reached(self, means: _Floats, goal: float) -> float:
        return float(self.moments[np.argmax(means <= goal + _ROUNDING)])


def time_ratios(soon: Sequence[Curve], late: Sequence[Curve]) -> list[Ratio]:
    """Compare two ways of searching, run on the same problems with the same seeds.

    The goals are the worse of both mean regrets at the end, and 1.1 and 1.3 times that; each
    resample has goals of its own, so that both reach them.

    Args:
        soon: A curve a run.
        late: The same runs the other way.
    """
    steps = _Steps(soon), _Steps(late)
    rng = np.random.default_rng(0)
    n = len(soon)
    goals, values = _compare(steps, np.arange(n))
    resampled = [_compare(steps, rng.integers(n, size=n))[1] for _ in range(_RESAMPLES)]
    tail = (1.0 - _LEVEL) / 2
    low, high = np.quantile(resampled, [tail, 1.0 - tail], axis=0)
    rows = zip(goals, values, low.tolist(), high.tolist(), strict=True)
    return [Ratio(*row) for row in rows]


def _compare(
    steps: tuple[_Steps, _Steps], runs: NDArray[np.intp]
) -> tuple[list[float], list[float]]:
    means = [one.mean(runs) for one in steps]
    end = max(float(mean[-1]) for mean in means)
    goals = [factor * end for factor in _FACTORS]
    times = [
        [one.reached(mean, goal) for goal in goals] for one, mean in zip(steps, means, strict=True)
    ]
    return goals, [late / soon for soon, late in zip(*times, strict=True)]
