"""The expectation of a utility whose values are known up to normal deviations."""

import math
from functools import cache

import torch
from botorch.utils.sampling import draw_sobol_normal_samples
from torch import Tensor

_N_DRAWS = 128


def expected_smallest(means: Tensor, deviations: Tensor) -> Tensor:
    """Return the expectation of the smallest of `m` independent normals, `b`-dim.

    Args:
        means: A `b x m`-dim tensor.
        deviations: A `b x m`-dim tensor.
    """
    m = means.shape[-1]
    if m == 1:
        return means[..., 0]
    if m > 2:
        return (means + deviations * normal_draws(m)[:, None]).amin(dim=-1).mean(dim=0)
    first, second = means.unbind(-1)
    theta = deviations.square().sum(dim=-1).clamp_min(1e-24).sqrt()
    z = (first - second) / theta
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    below = torch.special.ndtr(-z)
    expected: Tensor = first * below + second * (1.0 - below) - theta * density
    return expected


@cache
def normal_draws(n_columns: int) -> Tensor:
    """Return standard normal draws, in pairs that cancel, `_N_DRAWS x n_columns`-dim."""
    half: Tensor = draw_sobol_normal_samples(n_columns, _N_DRAWS // 2, dtype=torch.double, seed=0)
    return torch.cat([half, -half])
