"""Constraints as processes of their own: how likely a point keeps to all of them.

Constraints are Optuna's: `trial.constraints`, kept where they are at most 0. Their standard
errors are read from `trial.user_attrs["constraint_errors"]`, by name; a constraint that any trial
has without one gets an inferred noise level.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from botorch.acquisition import AcquisitionFunction
from optuna.trial import FrozenTrial
from torch import Tensor

from ._gp import Observations, Surrogate, fit_surrogate

# A trial is believed to keep to its constraints if that is likelier than not.
LIKELY = 0.5
_SMALLEST_DEVIATION = 1e-9
_SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class Feasibility:
    """What is known about the constraints.

    Args:
        margins: One a constraint, of one process each: by how much it is kept.
    """

    margins: tuple[Surrogate, ...]

    def probability(self, X: Tensor) -> Tensor:
        """Return how likely each point keeps to all constraints, taken as independent.

        Args:
            X: An `n x d`-dim tensor in the unit cube.
        """
        probability = torch.ones(len(X), dtype=torch.double)
        for surrogate in self.margins:
            mean, deviation = surrogate.posterior(X)
            z = mean / deviation.clamp_min(_SMALLEST_DEVIATION)
            probability = probability * torch.special.ndtr(z[:, 0])
        return probability

    def likely(self, X: Tensor) -> Tensor:
        """Return whether each point probably keeps to all; where none does, all count as such."""
        likely = self.probability(X) >= LIKELY
        return likely if likely.any() else torch.ones_like(likely)


def fit_feasibility(trials: Sequence[FrozenTrial], observations: Observations) -> Feasibility:
    """Fit one process a constraint, to the trials that have it.

    Args:
        trials: Measured.
        observations: Of the same trials in the same order.
    """
    names = sorted({name for trial in trials for name in trial.constraints})
    return Feasibility(tuple(_fit(name, trials, observations) for name in names))


def _fit(name: str, trials: Sequence[FrozenTrial], observations: Observations) -> Surrogate:
    rows = [row for row, trial in enumerate(trials) if name in trial.constraints]
    margins = [[-trials[row].constraints[name]] for row in rows]
    told = [trials[row].user_attrs.get("constraint_errors", {}).get(name) for row in rows]
    known = all(error is not None and math.isfinite(error) for error in told)
    errors = torch.tensor([[error] for error in told], dtype=torch.double) if known else None
    Y = torch.tensor(margins, dtype=torch.double)
    # Infinite margins are as good as large ones.
    finite = Y[torch.isfinite(Y)]
    bound = 2.0 * float(finite.abs().max()) + 1.0 if len(finite) else 1.0
    return fit_surrogate(
        Observations(
            observations.X[rows], Y.clamp(-bound, bound), errors, jumps=observations.jumps
        )
    )


class Weighted(AcquisitionFunction):
    """An acquisition function times the probability that a point keeps to all constraints.

    As in constrained expected improvement (Gardner et al. 2014).

    Args:
        acquisition: To be weighted; not negative, or a logarithm.
        feasibility: Of the points.
        is_log: Whether it is a logarithm.
    """

    def __init__(
        self, acquisition: AcquisitionFunction, feasibility: Feasibility, is_log: bool
    ) -> None:
        super().__init__(acquisition.model)
        self._acquisition, self._feasibility, self._is_log = acquisition, feasibility, is_log

    def forward(self, X: Tensor) -> Tensor:
        """Score a `b x 1 x d`-dim tensor, `b`-dim."""
        value: Tensor = self._acquisition(X)
        probability = self._feasibility.probability(X.squeeze(-2)).clamp_min(_SMALLEST_PROBABILITY)
        return value + probability.log() if self._is_log else value * probability
