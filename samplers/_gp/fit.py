"""Maximum a posteriori hyperparameters of one process."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from .priors import SHIFT, Priors, Trust, standardize
from .process import (
    JITTER,
    MOST_POINTS,
    Hint,
    Kernel,
    Measured,
    Process,
    log_likelihood,
    roughness,
    squared_distance,
)

# More points than this do not change the hyperparameters, only the cost of finding them.
_MAX_POINTS = 200
_MAX_STEPS = 60
# Hints are never all that there is to know: a tenth of the variance is left.
_MOST_RELIANCE = 0.95
_PENALTY = 1e10  # where the covariance is not positive definite
# Log noise variances to start from where noise is inferred: the likelihood has two optima, a
# smooth function with noise and a rough one without.
_NOISE_STARTS = (-4.0, -1.0)


def no_choices() -> Tensor:
    """Return the indices of no column."""
    return torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True, kw_only=True)
class Column(Measured):
    """What one process is fitted to; its noise is known up to a factor, which is fitted.

    Args:
        known_noise: Whether that factor is believed to be near one.
        importance: A `d`-dim tensor, larger is more important, or None.
        jumps: A `2 x p`-dim tensor: pairs of neighbouring layers' columns.
        choices: Indices of the columns that stand for a value of a choice.
        hints: What may explain the values.
    """

    known_noise: bool
    importance: Tensor | None
    jumps: Tensor
    choices: Tensor = field(default_factory=no_choices)
    hints: tuple[Hint, ...] = ()


@dataclass(frozen=True)
class Fit:
    """A fitted process.

    Args:
        process: Conditioned on all points, or on some of them where there are many.
        trust: In the importance.
        measured: All points that were fitted to, with the fitted noise.
    """

    process: Process
    trust: float
    measured: Measured

    def restricted(self, rows: Tensor) -> "Fit":
        """Condition on some of the points that were fitted to; hyperparameters stay.

        Args:
            rows: Indices of the points to keep.
        """
        kept = self.measured.restricted(rows)
        process = replace(self.process, X=kept.X, y=kept.y, noise=kept.noise, sizes=kept.sizes)
        return replace(self, process=process)


class _Objective:
    """Negative log posterior density and its gradient in the packed hyperparameters.

    Packed: common scale, trust, `d` deviations, mean, log of the factor on the noise; where there
    are hints, the reliance on each and the log of its scale.
    """

    def __init__(self, column: Column, priors: Priors) -> None:
        keep = spread_rows(len(column.X), _MAX_POINTS)
        self.X, self.y = column.X[keep], column.y[keep]
        self.noise = column.noise[keep]
        self.priors, self.dim = priors, column.X.shape[1]
        self.noise_prior = priors.noise_scale if column.known_noise else priors.noise
        self.numeric = torch.ones(self.dim, dtype=torch.double)
        self.numeric[column.choices] = 0.0
        self.z = torch.zeros(self.dim, dtype=torch.double)
        weights = self.numeric.bool()
        if column.importance is not None:
            self.z[weights] = standardize(column.importance[weights])
        centre = 0.5 * math.log(max(1, int(weights.sum())))
        self.centres = torch.full((self.dim,), centre, dtype=torch.double)
        self.centres[column.choices] = priors.choice[0]
        self.widths = torch.full((self.dim,), priors.deviation, dtype=torch.double)
        self.widths[column.choices] = priors.choice[1]
        rough = roughness(self.X, column.jumps)
        self.fixed = torch.outer(rough, rough)
        self.n_hints = len(column.hints)
        self.drifts = [hint.mean(self.X) for hint in column.hints]
        self.hinted = [hint.covariance(self.X, self.X) for hint in column.hints]

    def lengthscales(self, theta: Tensor) -> Tensor:
        """Return the `d` lengthscales."""
        location = self.centres + theta[0] * self.numeric - theta[1] * SHIFT * self.z
        return (location + theta[2 : 2 + self.dim]).exp()

    def __call__(self, packed: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        theta, reliances, scales = self.unpacked(packed)
        scaled = self.X / self.lengthscales(theta)
        smooth = torch.exp(-0.5 * squared_distance(scaled, scaled))
        noise = self.noise * theta[-1].exp()
        explained, residual, unexplained = self._hinted(
            reliances, reliances * scales, smooth, self.y - theta[-2]
        )
        try:
            value, solved, G = log_likelihood(
                explained + self.fixed + torch.diag(noise + JITTER), residual
            )
        except RuntimeError:  # torch's LinAlgError: not positive definite
            return _PENALTY, np.zeros_like(packed)
        H = G * smooth if not self.n_hints else G * smooth * unexplained
        per_length = 2 * ((H.sum(1)[:, None] * scaled - H @ scaled) * scaled).sum(0)
        of_scale = (per_length * self.numeric).sum()
        common = torch.stack([of_scale, -SHIFT * (per_length * self.z).sum()])
        ends = torch.stack([solved.sum(), (G.diagonal() * noise).sum()])
        prior, prior_gradient = self._prior(theta)
        gradient = torch.cat([common, per_length, ends]) + prior_gradient
        if self.n_hints:
            distance = reliances / self.priors.reliance
            logs = scales.log() / self.priors.hint_scale
            prior = prior - 0.5 * (distance.square().sum() + logs.square().sum())
            factors = reliances * scales
            pairs = zip(factors, self.drifts, self.hinted, strict=True)
            per_factor = torch.stack([solved @ m + 2 * f * (G * C).sum() for f, m, C in pairs])
            per_reliance = scales * per_factor - 2 * reliances * (G * smooth).sum()
            per_scale = factors * per_factor - logs / self.priors.hint_scale
            gradient = torch.cat(
                [gradient, per_reliance - distance / self.priors.reliance, per_scale]
            )
        return -float(value + prior), -gradient.numpy()

    def _hinted(
        self, reliances: Tensor, factors: Tensor, smooth: Tensor, residual: Tensor
    ) -> tuple[Tensor, Tensor, float]:
        """Return the covariance without noise and roughness, the residual, and what is left."""
        if not self.n_hints:
            return smooth, residual, 1.0
        left = 1.0 - float(reliances.square().sum())
        whole = left * smooth
        for factor, C, drift in zip(factors, self.hinted, self.drifts, strict=True):
            whole = whole + factor**2 * C
            residual = residual - factor * drift
        return whole, residual, left

    def unpacked(self, packed: NDArray[np.float64]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the hyperparameters but those of hints; reliances and scales."""
        theta, n = torch.from_numpy(packed), len(packed) - 2 * self.n_hints
        return theta[:n], theta[n : n + self.n_hints], theta[n + self.n_hints :].exp()

    def _prior(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        p = self.priors
        centre, width = self.noise_prior
        centres = torch.tensor([p.scale[0], p.trust[0], 0.0, centre], dtype=torch.double)
        widths = torch.tensor([p.scale[1], p.trust[1], p.mean, width], dtype=torch.double)
        normal = (torch.cat([theta[:2], theta[-2:]]) - centres) / widths
        deviations = theta[2 : 2 + self.dim] / self.widths
        tail = 1.0 + deviations.square() / p.freedom
        value = -0.5 * normal.square().sum() - 0.5 * (p.freedom + 1) * tail.log().sum()
        slopes = -normal / widths
        of_deviations = -(p.freedom + 1) / p.freedom * deviations / tail / self.widths
        return value, torch.cat([slopes[:2], of_deviations, slopes[2:]])

    def bounds(self, trust: Trust, known: bool) -> list[tuple[float, float]]:
        """Return the box; what is given is fixed."""
        of_trust = (0.0, 3.0)
        if not known:
            of_trust = (0.0, 0.0)
        elif trust != "learned":
            of_trust = (float(trust), float(trust))
        most = _MOST_RELIANCE / math.sqrt(max(1, self.n_hints))
        common = [(-4.0, 4.0), of_trust, *[(-5.0, 5.0)] * self.dim, (-4.0, 4.0), (-14.0, 2.0)]
        return common + [(0.0, most)] * self.n_hints + [(-2.0, 2.0)] * self.n_hints


def fit_column(
    column: Column,
    trust: Trust = "learned",
    priors: Priors | None = None,
    most: int = MOST_POINTS,
) -> Fit:
    """Maximize the posterior density of the hyperparameters.

    Args:
        column: At least one point.
        trust: "learned", or a fixed number; without importance it does not matter.
        priors: Defaults to None: `Priors()`.
        most: Points that the process is conditioned on, evenly spaced. Defaults to `MOST_POINTS`.
    """
    priors = priors or Priors()
    objective = _Objective(column, priors)
    starts = (priors.noise_scale[0],) if column.known_noise else _NOISE_STARTS
    bounds = objective.bounds(trust, column.importance is not None)
    results = [_minimize(objective, priors, bounds, start) for start in starts]
    best = min(results, key=lambda result: result[1])
    return _finish(column, objective, best[0], most)


def _minimize(
    objective: _Objective,
    priors: Priors,
    bounds: list[tuple[float, float]],
    log_noise: float,
) -> tuple[NDArray[np.float64], float]:
    start = np.zeros(objective.dim + 4)
    start[[0, 1, -1]] = priors.scale[0], priors.trust[0], log_noise
    n_hints = objective.n_hints
    start = np.concatenate([start, [priors.reliance] * n_hints, [0.0] * n_hints])
    low, high = np.array(bounds).T
    options = {"maxiter": _MAX_STEPS, "gtol": 1e-3}
    start = start.clip(low, high)
    result = minimize(
        objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    return result.x, float(result.fun)


def _finish(column: Column, objective: _Objective, packed: NDArray[np.float64], most: int) -> Fit:
    theta, reliances, scales = objective.unpacked(packed)
    measured = Measured(
        X=column.X,
        y=column.y,
        noise=column.noise * theta[-1].exp(),
        location=column.location,
        spread=column.spread,
        sizes=column.sizes,
    )
    kept = measured.restricted(spread_rows(len(column.X), most))
    process = Process(
        X=kept.X,
        y=kept.y,
        noise=kept.noise,
        location=kept.location,
        spread=kept.spread,
        sizes=kept.sizes,
        kernel=Kernel(
            objective.lengthscales(theta),
            column.jumps,
            column.hints,
            tuple(reliances.tolist()),
            tuple(scales.tolist()),
        ),
        mean=float(theta[-2]),
    )
    return Fit(process, float(theta[1]), measured)


def spread_rows(n: int, most: int) -> Tensor:
    """Return evenly spaced indices below `n`, first and last included, `most` at most."""
    evenly = np.linspace(0, n - 1, min(n, most)).round().astype(np.int64)
    return torch.from_numpy(np.unique(evenly))
