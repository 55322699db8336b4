"""One Gaussian process per objective, with the measured noise of every trial.

Notation: `n` trials, `d` columns of the unit cube, `m` objectives, all maximized.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .fit import Column, Fit, fit_column, no_choices, spread_rows
from .priors import Priors, Trust
from .process import MOST_POINTS, Hint, pooled_noise

# Smallest noise variance relative to the data's: keeps the covariance well conditioned.
NOISE_FLOOR = 1e-4
_LAST_BITS, _TINY = 1e-12, 1e-150


def _no_jumps() -> Tensor:
    return torch.zeros((2, 0), dtype=torch.long)


@dataclass(frozen=True)
class Observations:
    """What has been measured.

    Args:
        X: An `n x d`-dim tensor in the unit cube.
        Y: An `n x m`-dim tensor of values to maximize.
        errors: An `n x m`-dim tensor of standard errors; a column of NaN, or None for all, infers
            one noise level.
        importance: A `d`-dim tensor, larger is more important, or None.
        jumps: A `2 x p`-dim tensor of column indices: pairs of neighbouring layers.
        sizes: An `n`-dim tensor: questions of each measurement, 1 for the usual number; None
            where all have it.
        choices: Indices of the columns that stand for a value of a choice.
        hints: For each objective, what may explain it. Defaults to (): nothing.
    """

    X: Tensor
    Y: Tensor
    errors: Tensor | None = None
    importance: Tensor | None = None
    jumps: Tensor = field(default_factory=_no_jumps)
    sizes: Tensor | None = None
    choices: Tensor = field(default_factory=no_choices)
    hints: tuple[tuple[Hint, ...], ...] = ()

    @property
    def exact(self) -> Tensor:
        """Which objectives are known without error in all trials, `m`-dim."""
        if self.errors is None:
            return torch.zeros(self.Y.shape[1], dtype=torch.bool)
        return (self.errors == 0).all(dim=0)

    def known_errors(self, j: int) -> Tensor | None:
        """Return the standard errors of an objective, `n`-dim; None if they are to be inferred."""
        column = None if self.errors is None else self.errors[:, j]
        return None if column is None or bool(column.isnan().any()) else column


@dataclass(frozen=True)
class Surrogate:
    """The fitted processes.

    Args:
        fits: One per objective.
    """

    fits: tuple[Fit, ...]

    @property
    def trust(self) -> tuple[float, ...]:
        """For every objective, the trust in the importance."""
        return tuple(fit.trust for fit in self.fits)

    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior mean and standard deviation of the noise-free values.

        Args:
            X: An `n x d`-dim tensor in the unit cube.

        Returns:
            Two `n x m`-dim tensors.
        """
        columns = [fit.process.posterior(X) for fit in self.fits]
        return torch.stack([c[0] for c in columns], 1), torch.stack([c[1] for c in columns], 1)

    def means(self, X: Tensor) -> Tensor:
        """Return the posterior means alone, an `n x m`-dim tensor; see `posterior`."""
        return torch.stack([fit.process.means(X) for fit in self.fits], 1)

    def restricted(self, rows: Tensor) -> "Surrogate":
        """Condition on some of the trials that were fitted to; see `Fit.restricted`."""
        return Surrogate(tuple(fit.restricted(rows) for fit in self.fits))

    def relevance(self) -> Tensor:
        """Return the inverse lengthscales, an `m x d`-dim tensor: larger is more relevant."""
        return torch.stack([1.0 / fit.process.kernel.lengthscales for fit in self.fits])

    def with_pending(self, P: Tensor | None) -> "Surrogate":
        """Condition on points in flight; see `Process.with_pending`."""
        if P is None or not len(P):
            return self
        fits = (replace(fit, process=fit.process.with_pending(P)) for fit in self.fits)
        return Surrogate(tuple(fits))


def fit_surrogate(
    observations: Observations,
    trust: Trust = "learned",
    priors: Priors | None = None,
    most: int = MOST_POINTS,
) -> Surrogate:
    """Fit one process per objective by maximizing the posterior of the hyperparameters.

    Args:
        observations: At least one trial.
        trust: How much to believe the importance; "learned" infers it for each objective.
        priors: Defaults to None: `Priors()`.
        most: Trials that the processes are conditioned on, evenly spaced over all. Defaults to
            `MOST_POINTS`.
    """
    columns = (_column(observations, j, most) for j in range(observations.Y.shape[1]))
    return Surrogate(tuple(fit_column(column, trust, priors, most) for column in columns))


def _column(observations: Observations, j: int, most: int) -> Column:
    values = observations.Y[:, j]
    location = float(values.mean())
    spread = float(values.std()) if len(values) > 1 else 0.0
    # Whatever the unit is: a spread that is a matter of the last bits is none.
    spread = spread if spread > _LAST_BITS * abs(location) and spread > _TINY else 1.0
    standardized = (values - location) / spread
    noise, errors = torch.ones_like(values), observations.known_errors(j)
    sizes = None if errors is None else observations.sizes
    if errors is not None:
        told = (errors / spread).square().clamp_min(NOISE_FLOOR)
        per_size = torch.ones_like(values) if sizes is None else sizes
        rows, per_trial = spread_rows(len(values), most), told * per_size
        noise = pooled_noise(standardized, standardized[rows], per_trial[rows]) / per_size
    return Column(
        X=observations.X,
        y=standardized,
        noise=noise,
        known_noise=errors is not None,
        importance=observations.importance,
        jumps=observations.jumps,
        choices=observations.choices,
        hints=observations.hints[j] if observations.hints else (),
        location=location,
        spread=spread,
        sizes=sizes,
    )
