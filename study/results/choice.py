r"""Choose one model of a front by what its user wants.

The utility of a model is its smallest scaled gain, `u_w(y) = min_j (y_j - ref_j) / (span_j w_j)`
over the objectives that have no limit: 0 at the reference point, and the larger an objective's
weight, the more it binds. Beliefs are uncertain, so each utility has an interval, and models that
cannot be told from the chosen one are named as tied with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial
from scipy.stats import norm

from ...errors import SpecError, StudyError
from ...samplers import Recommendation
from ..spec.base import near_hint
from .front import FrontReport
from .front_table import role, rounded
from .recommendations import to_json

_N_DRAWS = 4000
# Two models are tied if the worse one is the better one in this share of the draws.
_TIED = 0.025
_INTERVAL = (2.5, 97.5)
# The integral of an expected utility: how many deviations it reaches, in how many steps.
_REACH, _N_STEPS = 6.0, 2000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Wish:
    """What a user wants.

    Args:
        limits: Metric -> the worst value that is still acceptable, in the metric's own unit.
        weights: Metric -> how much it counts among those without a limit; 1 unless given.
    """

    limits: Mapping[str, float]
    weights: Mapping[str, float]

    def check(self, names: Sequence[str]) -> None:
        """Check that the wish is about a study's objectives.

        Raises:
            SpecError: If a metric is none of them, or a weight is not positive.
        """
        for name in [*self.limits, *self.weights]:
            if name not in names:
                raise SpecError(
                    f"A wish must be about an objective of the study ({', '.join(names)}), but "
                    f"got {name!r}{near_hint(name, names)}"
                )
        for name, weight in self.weights.items():
            if not (np.isfinite(weight) and weight > 0):
                raise SpecError(f"--weight must be above 0, but {name} is {weight:g}.")
            if name in self.limits:
                raise SpecError(f"{name} has a limit and a weight; give one of them.")


@dataclass(frozen=True)
class Chosen:
    """One model as a choice.

    Args:
        trial: Of the front.
        utility: Expected, under the believed values and their errors.
        interval: 95 % of the draws of its utility lie in it.
        keeps: Probability that it keeps to the limits, by its believed values and errors.
    """

    trial: FrozenTrial
    utility: float
    interval: tuple[float, float]
    keeps: float


@dataclass(frozen=True)
class Choice:
    """The chosen model, and those that cannot be told from it.

    Args:
        report: The front that was chosen from.
        wish: What was wanted.
        best: The chosen model.
        tied: Best first.
        unmeasured: A model that nobody measured and that is clearly better by prediction; None
            if there is none, or the wish has limits, which predictions alone do not keep.
    """

    report: FrontReport
    wish: Wish
    best: Chosen
    tied: list[Chosen]
    unmeasured: Recommendation | None = None

    def why(self) -> str:
        """Return the reason in one sentence."""
        names, flips = self.report.metric_names, _flips(self.report)
        limits = [
            f"{name} {'at least' if flip > 0 else 'at most'} {self.wish.limits[name]:g}"
            for name, flip in zip(names, flips, strict=True)
            if name in self.wish.limits
        ]
        free = _free(self.wish, names)
        weights = self.wish.weights
        shown = [f"{n} (weight {weights[n]:g})" if n in weights else n for n in free]
        best = f"the best {'balance of ' if len(free) > 1 else ''}{' and '.join(shown)}"
        return f"{best}{' with ' if limits else ''}{' and '.join(limits)}"

    def to_json(self) -> dict[str, Any]:
        """Return what `pick --format json` prints."""
        return {
            "study": self.report.study,
            "limits": dict(self.wish.limits),
            "weights": dict(self.wish.weights),
            "why": self.why(),
            "pick": self._one(self.best),
            "tied": [self._one(chosen) for chosen in self.tied],
            "unmeasured": self.unmeasured and to_json(self.unmeasured, self.report.metric_names),
        }

    def _one(self, chosen: Chosen) -> dict[str, Any]:
        trial = chosen.trial
        return {
            "number": trial.number,
            "role": role(trial),
            "values": self.report.named(trial.user_attrs["denoised"]),
            "deviations": self.report.named(trial.user_attrs["denoised_errors"]),
            "measured": self.report.named(trial.values),
            "utility": chosen.utility,
            "interval": list(chosen.interval),
            "keeps_limits": chosen.keeps,
            "params": trial.params,
        }


def choose(report: FrontReport, wish: Wish) -> Choice:
    """Return the front's model with the best expected utility of those believed to keep limits.

    Raises:
        SpecError: If the wish is not about the study's objectives.
        StudyError: If no model is believed to keep the limits.
    """
    wish.check(report.metric_names)
    report.check_models()
    means = np.array([t.user_attrs["denoised"] for t in report.trials], dtype=float)
    errors = np.array([t.user_attrs["denoised_errors"] for t in report.trials], dtype=float)
    kept = _keeps(means, report, wish)
    if not kept.any():
        raise _none_keeps(report, wish)
    noise = np.random.default_rng(0).standard_normal((_N_DRAWS, *means.shape))
    draws = means + noise * errors
    drawn = _utility(draws, report, wish)
    # By the believed values alone, the model that is known least would be chosen too often.
    utilities = _expected_utility(means, errors, report, wish)
    best = int(np.flatnonzero(kept)[utilities[kept].argmax()])
    numbers = [trial.number for trial in report.trials]
    if not (wish.limits or wish.weights) and report.knee in numbers:
        best = numbers.index(report.knee)  # by the surrogate's joint posterior, as `front` says
    shares = _keeps(draws, report, wish).mean(axis=0)
    better = (drawn > drawn[:, [best]]).mean(axis=0)
    order = sorted(np.flatnonzero(kept).tolist(), key=lambda row: -utilities[row])
    tied = [row for row in order if row != best and better[row] >= _TIED]

    def chosen(row: int) -> Chosen:
        low, high = np.percentile(drawn[:, row], _INTERVAL)
        interval = (float(low), float(high))
        return Chosen(report.trials[row], float(utilities[row]), interval, float(shares[row]))

    unmeasured = _unmeasured(report, wish)
    return Choice(report, wish, chosen(best), [chosen(row) for row in tied], unmeasured)


def _unmeasured(report: FrontReport, wish: Wish) -> Recommendation | None:
    if wish.limits:
        return None
    weights = np.array([wish.weights.get(name, 1.0) for name in report.metric_names])
    found = report.recommend([(weights / weights.sum()).tolist()])
    return next((one for one in found if one.number is None), None)


def _flips(report: FrontReport) -> Array:
    return np.array([1.0 if d == "maximize" else -1.0 for d in report.directions])


def _free(wish: Wish, names: Sequence[str]) -> list[str]:
    """Return the objectives that make the utility: those without a limit, or all if none is."""
    return [name for name in names if name not in wish.limits] or list(names)


def _utility(values: Array, report: FrontReport, wish: Wish) -> Array:
    """Return the utility of values in the objectives' own units, over the last axis."""
    columns, scale = _scale(report, wish)
    gains = (values - np.array(report.reference_point))[..., columns] / scale
    result: Array = gains.min(axis=-1)
    return result


def _expected_utility(means: Array, errors: Array, report: FrontReport, wish: Wish) -> Array:
    """Return each model's expected utility, its objectives being independent normals.

    The expectation of a minimum is `low + int P(all of them > t) dt` from a `low` that none falls
    below. report.js does the same sum.
    """
    columns, scale = _scale(report, wish)
    gains = (means - np.array(report.reference_point))[:, columns] / scale
    deviations = np.maximum(errors[:, columns] / np.abs(scale), 1e-12)
    low = (gains - _REACH * deviations).min(axis=1)
    high = (gains + _REACH * deviations).min(axis=1)
    steps = np.linspace(low, high, _N_STEPS, axis=1)  # models x steps
    above = norm.sf((steps[..., None] - gains[:, None]) / deviations[:, None]).prod(axis=2)
    result: Array = low + np.trapezoid(above, steps, axis=1)
    return result


def _scale(report: FrontReport, wish: Wish) -> tuple[list[int], Array]:
    """Return the free objectives' columns, and what their gains are divided by, with its sign."""
    flips, reference = _flips(report), np.array(report.reference_point)
    front = np.array([t.user_attrs["denoised"] for t in report.trials], dtype=float)
    span = np.maximum(((front - reference) * flips).max(axis=0), 1e-12)
    names = report.metric_names
    columns = [names.index(name) for name in _free(wish, names)]
    weights = np.array([wish.weights.get(names[c], 1.0) for c in columns])
    scale: Array = flips[columns] * span[columns] * weights / weights.mean()
    return columns, scale


def _keeps(values: Array, report: FrontReport, wish: Wish) -> NDArray[np.bool_]:
    result = np.ones(values.shape[:-1], dtype=bool)
    for name, limit in wish.limits.items():
        column = report.metric_names.index(name)
        result &= (values[..., column] - limit) * _flips(report)[column] >= 0
    return result


def _none_keeps(report: FrontReport, wish: Wish) -> StudyError:
    """Return the error that names, for each limit, the model that comes nearest."""
    nearest = []
    for name, limit in wish.limits.items():
        column = report.metric_names.index(name)
        flip = _flips(report)[column]
        trial = max(report.trials, key=lambda t: flip * t.user_attrs["denoised"][column])
        shown = rounded(
            trial.user_attrs["denoised"][column], trial.user_attrs["denoised_errors"][column]
        )
        side = "at least" if flip > 0 else "at most"
        nearest.append(f"{name} {side} {limit:g} (best: {shown}, trial {trial.number})")
    return StudyError(
        f"No model of study {report.study!r} is believed to have {' and '.join(nearest)}. Loosen "
        "a limit, or continue the search with more `--trials`."
    )
