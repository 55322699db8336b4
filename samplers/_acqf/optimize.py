"""Maximize an acquisition function over the unit cube."""

from dataclasses import dataclass

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.optim import optimize_acqf
from torch import Tensor


@dataclass(frozen=True)
class AcquisitionBudget:
    """What one suggestion may cost.

    Args:
        n_samples: Posterior samples (Sobol).
        n_raw: Points screened to start from, half of them near the best evaluated ones.
        n_restarts: Starts of the gradient ascent.
        n_steps: Its steps at most.
    """

    n_samples: int = 128
    n_raw: int = 256
    n_restarts: int = 6
    n_steps: int = 100


def maximize(
    acquisition: AcquisitionFunction, dim: int, budget: AcquisitionBudget, seed: int
) -> Tensor:
    """Return the best point found, a `d`-dim tensor in the unit cube.

    Args:
        acquisition: Scores a `b x 1 x d`-dim tensor.
        dim: Number of columns.
        budget: How hard to try.
        seed: Of the raw points.
    """
    bounds = torch.stack([torch.zeros(dim), torch.ones(dim)]).double()
    candidate, _ = optimize_acqf(
        acquisition,
        bounds=bounds,
        q=1,
        num_restarts=budget.n_restarts,
        raw_samples=budget.n_raw,
        options={
            "seed": seed,
            "sample_around_best": True,
            "maxiter": budget.n_steps,
            "batch_limit": budget.n_restarts,
        },
    )
    return candidate[0].detach()
