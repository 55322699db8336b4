r"""Lengthscale priors that depend on the importance of a parameter.

BoTorch's dimension-scaled prior (Hvarfner et al. 2024, arXiv 2402.02229) puts every log
lengthscale at `N(sqrt(2) + log(d) / 2, 3)`. The structural importance prior (SIP-BMM, arXiv
2512.09972) says that some layers matter more. We shift the mean of the log lengthscale,

    mu_i = sqrt(2) + log(d) / 2 - trust * SHIFT * z_i,

with `z` the standardized importance: important layers get shorter lengthscales, and the mean
over layers stays where it was. The released SIP-BMM and AP-BMM code only *initialises*
lengthscales by importance; the fit then forgets it (97-100 % of them move).
"""

import math
from typing import Literal

import torch
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import RBFKernel
from gpytorch.priors import LogNormalPrior
from torch import Tensor

# A number scales the shift; "learned" lets the data choose between none of it and all of it.
Trust = float | Literal["learned"]

# One standard deviation of importance divides the prior median by e**SHIFT = 2.1. A wrong prior
# costs more than a true one gains, so the shift is well below the prior's own width of sqrt(3).
SHIFT = 0.75
_LARGEST_Z = 2.0
_SHORTEST = 0.025  # as in BoTorch's own dimension-scaled kernel


def make_kernel(dim: int, importance: Tensor | None, trust: float) -> RBFKernel:
    """Return an RBF kernel with one lengthscale a column.

    Args:
        dim: Number of columns.
        importance: A `d`-dim tensor, larger is more important; None for no prior knowledge.
        trust: Scale of the shift.
    """
    location = torch.full((dim,), math.sqrt(2) + math.log(dim) / 2, dtype=torch.double)
    if importance is not None:
        location = location - trust * SHIFT * standardize(importance)
    prior = LogNormalPrior(loc=location, scale=math.sqrt(3))
    mode = torch.exp(location - 3.0).clamp_min(2 * _SHORTEST)
    constraint = GreaterThan(_SHORTEST, transform=None, initial_value=mode)
    return RBFKernel(ard_num_dims=dim, lengthscale_prior=prior, lengthscale_constraint=constraint)


def standardize(importance: Tensor) -> Tensor:
    """Return the standardized importance, clipped to two deviations; zeros if it is constant."""
    spread = importance.std() if importance.numel() > 1 else torch.tensor(0.0)
    if not spread > 1e-9:
        return torch.zeros_like(importance)
    return ((importance - importance.mean()) / spread).clamp(-_LARGEST_Z, _LARGEST_Z)
