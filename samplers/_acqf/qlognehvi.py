"""Expected improvement of the hypervolume or of the single best value."""

from typing import Any

import torch
from botorch.acquisition import (
    AcquisitionFunction,
    qLogExpectedImprovement,
    qLogNoisyExpectedImprovement,
)
from botorch.acquisition.multi_objective import logei
from botorch.acquisition.multi_objective.logei import (
    qLogExpectedHypervolumeImprovement,
    qLogNoisyExpectedHypervolumeImprovement,
)
from botorch.acquisition.multi_objective.objective import WeightedMCMultiOutputObjective
from botorch.models.model import Model
from botorch.sampling import SobolQMCNormalSampler
from botorch.utils.multi_objective.box_decompositions import FastNondominatedPartitioning
from torch import Tensor

from .._gp import Surrogate
from .botorch_surrogate import BoTorchSurrogate

# BoTorch compiles a C++ kernel on first use: half a minute, results that depend on the machine
# it was compiled for, and, if a worker is killed meanwhile, a stale lock that stops every later
# worker (pytorch #189245). The kernel saves a few tenths of a second a suggestion, so the
# sampler declares the attempt made.
logei._load_attempted = True

# BoTorch cuts the boxes of a front off there: of larger values no logarithm of a volume is left.
_BOUND = 1e10
# What larger values are scaled to, and how many deviations above the mean a draw may be.
_WITHIN, _REACH = 1e9, 6.0


def make_acquisition(
    surrogate: Surrogate,
    X: Tensor,
    pending: Tensor | None,
    reference_point: Tensor,
    sampler: SobolQMCNormalSampler,
) -> AcquisitionFunction:
    """Return `noisy_improvement` under our surrogate."""
    model = BoTorchSurrogate(surrogate)
    return noisy_improvement(model, X, pending, reference_point, sampler)


def noisy_improvement(
    model: Model,
    X: Tensor,
    pending: Tensor | None,
    reference_point: Tensor,
    sampler: SobolQMCNormalSampler,
) -> AcquisitionFunction:
    """Return qLogNEHVI (Daulton et al. 2021; Ament et al. 2023), or qLogNEI for one objective.

    Both integrate over the noise of the points evaluated so far, and cost the same for any
    number of pending points (qLogEHVI's cost doubles with each).

    Args:
        model: Fitted.
        X: An `n x d`-dim tensor of evaluated points.
        pending: A `p x d`-dim tensor of points in flight, or None.
        reference_point: An `m`-dim tensor; ignored for one objective.
        sampler: Draws the posterior samples.
    """
    common: dict[str, Any] = {"sampler": sampler, "X_pending": pending, "prune_baseline": True}
    if reference_point.numel() == 1:
        return qLogNoisyExpectedImprovement(model, X, cache_root=False, **common)
    if (weights := _weights(_highest(model, X), reference_point)) is not None:
        reference_point = reference_point * weights
        common["objective"] = WeightedMCMultiOutputObjective(weights)
    return qLogNoisyExpectedHypervolumeImprovement(
        model, reference_point, X, cache_root=False, **common
    )


def improvement(
    model: Model,
    means: Tensor,
    pending: Tensor | None,
    reference_point: Tensor,
    sampler: SobolQMCNormalSampler,
) -> AcquisitionFunction:
    """Return qLogEHVI (Daulton et al. 2020; Ament et al. 2023), or qLogEI for one objective.

    Both take the evaluated points' values for known; the values are the posterior means, since
    those measured are noisy.

    Args:
        model: Fitted.
        means: Posterior means of the evaluated points, `n x m`-dim.
        pending: A `p x d`-dim tensor of points in flight, or None; cost doubles with each.
        reference_point: An `m`-dim tensor; ignored for one objective.
        sampler: Draws the posterior samples.
    """
    if reference_point.numel() == 1:
        best = float(means.max())
        return qLogExpectedImprovement(model, best, sampler=sampler, X_pending=pending)
    objective = None
    if (weights := _weights(means, reference_point)) is not None:
        reference_point, means = reference_point * weights, means * weights
        objective = WeightedMCMultiOutputObjective(weights)
    # BoTorch names one of its two classes; both give boxes.
    boxes: Any = FastNondominatedPartitioning(reference_point, means)
    return qLogExpectedHypervolumeImprovement(
        model,
        reference_point,
        boxes,
        sampler=sampler,
        objective=objective,
        X_pending=pending,
    )


def _highest(model: Model, X: Tensor) -> Tensor:
    """Return as large as draws at known points may be: far above the means beside a penalty."""
    with torch.no_grad():
        posterior: Any = model.posterior(X)
        top: Tensor = posterior.mean + _REACH * posterior.variance.clamp_min(0.0).sqrt()
    return top.flatten(0, -2)  # a fully Bayesian model has several posteriors


def _weights(top: Tensor, reference_point: Tensor) -> Tensor | None:
    """Return what brings large objectives within BoTorch's bounds; None where all are.

    Args:
        top: An `n x m`-dim tensor: as large as the values may be, maximized.
        reference_point: An `m`-dim tensor.
    """
    largest = torch.maximum(top.amax(dim=0), reference_point)
    if not bool((largest > _BOUND).any()):
        return None
    return torch.where(largest > _BOUND, _WITHIN / largest, torch.ones_like(largest))
