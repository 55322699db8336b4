"""What layer-wise weights bring over the uniform curve, and where on the curve to stay if nothing.

The curve is compared, not the few uniform merges that were measured: a search that looks closely
only at layer-wise candidates would seem to beat a curve that was merely looked at coarsely.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from botorch.utils.sampling import draw_sobol_normal_samples
from optuna.trial import FrozenTrial
from torch import Tensor

from ...samplers import CAUTION, Adviser, Recommendation
from ..first_trials import is_uniform

# Points between two neighbouring uniform merges.
_N_BETWEEN = 20
_N_DRAWS = 512
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
    curve = _curve(adviser.model.trials, adviser.model.observations.X)
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
    curve = _curve(adviser.model.trials, adviser.model.observations.X)
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
    params = adviser.model.cube.decode(point.numpy())
    means, deviations = adviser.model.surrogate.posterior(point[None])
    level = next(iter(params.values()))
    return level, params, (means[0] * adviser.flips).tolist(), deviations[0].tolist()


def _curve(trials: Sequence[FrozenTrial], X: Tensor) -> Tensor | None:
    """Return points of the curve, `c x d`-dim: uniform merges and between neighbours."""
    rows = [row for row, trial in enumerate(trials) if is_uniform(trial) and _is_even(trial)]
    if len(rows) < 2 or X.shape[1] < 2:  # with one variable there are no layers to judge
        return None
    ordered = X[rows][X[rows][:, 0].argsort()]
    steps = torch.arange(_N_BETWEEN, dtype=torch.double)[:, None] / _N_BETWEEN
    between = ordered[:-1, None] + steps * (ordered[1:, None] - ordered[:-1, None])
    return torch.cat([between.reshape(-1, X.shape[1]), ordered[-1:]])


def _is_even(trial: FrozenTrial) -> bool:
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
