"""What layer-wise weights bring over the uniform curve, and where on the curve to stay if nothing.

The curve is compared, not the few uniform merges that were measured: a search that looks closely
only at layer-wise candidates would seem to beat a curve that was merely looked at coarsely.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from botorch.utils.sampling import draw_sobol_normal_samples
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial
from torch import Tensor

from ...samplers import CAUTION, Adviser, Recommendation
from ..first_trials import is_uniform

# Points between two neighbouring uniform merges.
_N_BETWEEN = 20
_N_DRAWS = 512
_ROUNDING = 1e-9

Array = NDArray[np.float64]
_INTERVAL = torch.tensor([0.025, 0.975], dtype=torch.double)


@dataclass(frozen=True)
class LayerwiseGain:
    """Utility of what is recommended beyond the best of the uniform curve, mean over preferences.

    Args:
        gain: As a share of the curve's utility.
        interval: 95 %, with deviations doubled.
        level: Uniform weight to take for a preference for all objectives alike.
        params: The same as parameters.
        values: Predicted there, one an objective.
        deviations: Of the values.
    """

    gain: float
    interval: tuple[float, float]
    level: float
    params: dict[str, Any]
    values: list[float]
    deviations: list[float]

    @property
    def shown(self) -> bool:
        """Whether the gain is clear of zero."""
        return self.interval[0] > 0

    @property
    def probable(self) -> bool:
        """Whether it is clear of zero by the surrogate's own deviations, which are not doubled."""
        return self.gain - (self.gain - self.interval[0]) / CAUTION > 0

    def sentence(self) -> str:
        """Return the verdict in one line."""
        low, high = (100 * bound for bound in self.interval)
        told = f"{100 * self.gain:+.1f} % of utility [{low:+.1f}, {high:+.1f}]"
        if self.shown:
            return f"layer-wise weights gain {told} over the uniform curve"
        if self.probable:
            return (
                f"layer-wise weights probably gain {told} over the uniform curve, which is not "
                f"shown: `mergefront validate` measures it, or take uniform {self.level:.2f}"
            )
        return (
            "layer-wise adds nothing here that we can show: "
            f"take uniform {self.level:.2f} (gain {told})"
        )

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Return what `front --format json` prints of it.

        Args:
            names: Of the metrics.
        """
        return {
            "gain": self.gain,
            "interval": list(self.interval),
            "shown": self.shown,
            "uniform": {
                "level": self.level,
                "params": self.params,
                "values": dict(zip(names, self.values, strict=True)),
                "deviations": dict(zip(names, self.deviations, strict=True)),
            },
        }


def layerwise_gain(
    adviser: Adviser, recommended: Sequence[Recommendation]
) -> LayerwiseGain | None:
    """Compare what is recommended with the uniform curve under one posterior.

    Args:
        adviser: Of the study.
        recommended: By it, for a range of preferences.

    Returns:
        None where there is no curve: fewer than two uniform merges, or several experts.
    """
    curve = _curve(adviser)
    if curve is None or not recommended:
        return None
    weights = torch.tensor([one.preference for one in recommended], dtype=torch.double)
    best = [int(adviser.expected(curve, row.expand(len(curve), -1)).argmax()) for row in weights]
    ours = adviser.model.cube.encode([one.params for one in recommended])
    lost_and_won = _drawn_utilities(adviser, torch.cat([ours, curve[best]]), weights.repeat(2, 1))
    won, of_curve = lost_and_won.chunk(2, dim=1)
    unit = of_curve.mean().abs().clamp_min(1e-9)
    gains = (won.mean(dim=1) - of_curve.mean(dim=1)) / unit
    low, high = gains.quantile(_INTERVAL).tolist()
    return LayerwiseGain(float(gains.mean()), (low, high), *_even(adviser, curve))


def curve_points(adviser: Adviser) -> Tensor | None:
    """Return points of the uniform curve, `c x d`-dim, without those that break a constraint.

    Args:
        adviser: Of the study.

    Returns:
        None where there is no curve: fewer than two uniform merges, or several experts.
    """
    curve = _curve(adviser)
    return None if curve is None else curve[adviser.model.feasibility.allows(curve)]


def curve_values(adviser: Adviser) -> Tensor | None:
    """Return what is believed along the uniform curve, `c x m`-dim, in the study's directions.

    Args:
        adviser: Of the study.

    Returns:
        None where there is no curve; see `curve_points`.
    """
    points = curve_points(adviser)
    return None if points is None else adviser.model.surrogate.means(points) * adviser.flips


def _even(
    adviser: Adviser, curve: Tensor
) -> tuple[float, dict[str, Any], list[float], list[float]]:
    """Return the point of the curve for all objectives alike: level, parameters, values."""
    m = len(adviser.span)
    even = torch.full((len(curve), m), 1.0 / m, dtype=torch.double)
    point = curve[adviser.expected(curve, even).argmax()]
    params = _params(adviser, point)
    means, deviations = adviser.model.surrogate.posterior(point[None])
    level = next(iter(params.values()))
    return level, params, (means[0] * adviser.flips).tolist(), deviations[0].tolist()


def _params(adviser: Adviser, point: Tensor) -> dict[str, Any]:
    """Return the parameters of a point of the curve; of a parent beyond the bounds, its own."""
    cube = adviser.model.cube
    if bool(_inside(point)):
        return cube.decode(point.numpy())
    row = int(torch.cdist(adviser.model.observations.X, point[None]).argmin())
    parent = adviser.model.trials[row].params
    return {name: parent[name] for name in cube.search_space}


def _curve(adviser: Adviser) -> Tensor | None:
    """Return points of the curve, `c x d`-dim: uniform merges and between neighbours.

    Several experts, operators or precisions have no one level, and no curve: so says `validate`.
    Between a parent that the bounds leave out and the nearest bound lies nothing: no search may
    go there.
    """
    trials, X = adviser.model.trials, adviser.model.observations.X
    rows = [row for row, trial in enumerate(trials) if is_uniform(trial)]
    if len(rows) < 2 or X.shape[1] < 2:  # with one variable there are no layers to judge
        return None
    if not all(_is_even(trials[row]) for row in rows):  # with several experts the parents are not
        return None
    ordered = X[rows][X[rows][:, 0].argsort()]
    steps = torch.arange(_N_BETWEEN, dtype=torch.double)[:, None] / _N_BETWEEN
    between = ordered[:-1, None] + steps * (ordered[1:, None] - ordered[:-1, None])
    kept = _inside(between)
    kept[:, 0] = True  # measured
    return torch.cat([between[kept], ordered[-1:]])


def _inside(points: Tensor) -> Tensor:
    """Whether points lie within the bounds of a search, but for rounding."""
    return ((points >= -_ROUNDING) & (points <= 1.0 + _ROUNDING)).all(dim=-1)


def _is_even(trial: FrozenTrial) -> bool:
    """Whether one number says which merge it is."""
    return len(set(trial.params.values())) == 1


def _drawn_utilities(adviser: Adviser, X: Tensor, weights: Tensor) -> Tensor:
    """Return draws of the utility of each point for its preference, `draws x b`-dim."""
    drawn = joint_draws(adviser, X)
    return ((drawn - adviser.reference) / (adviser.span * weights)).amin(dim=-1)


def joint_draws(adviser: Adviser, X: Tensor) -> Tensor:
    """Return draws of the noise-free values of points, maximized, `draws x b x m`-dim.

    Args:
        adviser: Of the study.
        X: A `b x d`-dim tensor.
    """
    fits = adviser.model.surrogate.fits
    draws = draw_sobol_normal_samples(len(X) * len(fits), _N_DRAWS, dtype=torch.double, seed=0)
    columns: list[Tensor] = []
    for fit, z in zip(fits, draws.chunk(len(fits), dim=1), strict=True):
        mean, covariance = fit.process.joint(X)
        values, vectors = torch.linalg.eigh(covariance)
        root = vectors * values.clamp_min(0.0).sqrt()
        columns.append(mean + CAUTION * z @ root.T)
    return torch.stack(columns, dim=-1)


def straight_curve(trials: Sequence[FrozenTrial], values: Array, n_between: int) -> Array:
    """Return the curve that was measured, straight between neighbouring merges.

    Where uniform merges have no order (several experts or operators), they stand for themselves.
    So does a parent that the bounds leave out: no search may go between it and the bound.

    Args:
        trials: Parents and uniform merges.
        values: Measured: resamples x trials x objectives.
        n_between: Points from one merge to the next.
    """
    if not trials or not all(_is_even(trial) for trial in trials):
        return values
    levels = np.array([next(iter(trial.params.values())) for trial in trials])
    order = levels.argsort(kind="stable")
    points, levels = values[:, order], levels[order]
    steps = np.arange(n_between) / n_between
    starts, moves = points[:, :-1, None], np.diff(points, axis=1)[:, :, None]
    between = (starts + steps[:, None] * moves).reshape(len(points), -1, points.shape[2])
    kept = _searched(trials, levels[:-1, None] + steps * np.diff(levels)[:, None])
    return np.concatenate([between[:, kept], points[:, -1:]], axis=1)


def _searched(trials: Sequence[FrozenTrial], levels: Array) -> NDArray[np.bool_]:
    """Return which levels between merges a search may take; the first of a row is measured."""
    # The distributions of a parent beyond the bounds reach out to it.
    found = (d for trial in trials for d in trial.distributions.values())
    ranges = [d for d in found if isinstance(d, FloatDistribution)]
    low, high = max(d.low for d in ranges), min(d.high for d in ranges)
    kept: NDArray[np.bool_] = (levels >= low - _ROUNDING) & (levels <= high + _ROUNDING)
    kept[:, 0] = True
    return kept.ravel()
