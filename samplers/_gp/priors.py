r"""Priors over the hyperparameters, and how importance enters them.

A lengthscale is a common scale, a share explained by importance, and a deviation of its own,

    log l_i = log(d) / 2 + s - trust * SHIFT * z_i + delta_i,

with `z` the standardized importance. `sqrt(d)` keeps the distance of two random points of the
cube at the same number of lengthscales for every `d` (Hvarfner et al. 2024, arXiv 2402.02229).
The deviations are Student-t: most parameters follow their group, a few may leave it far behind.
`trust >= 0` is learned like the rest. A fixed importance cannot be switched off by data, and the
released SIP-BMM and AP-BMM code only *initialises* lengthscales by importance, which the fit then
forgets (97-100 % of them move).

A choice has a column for each of its values. Two values of it are correlated by
`exp(-(1 / l_a^2 + 1 / l_b^2) / 2)`: what is learned under one informs the other, the more the
larger their lengthscales are, which depend neither on `d` nor on the common scale.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# A number fixes the trust; "learned" lets the data choose it.
Trust = float | Literal["learned"]

# At full trust, one standard deviation of importance divides a lengthscale by e**SHIFT = 2.1.
SHIFT = 0.75
_LARGEST_Z = 2.0


@dataclass(frozen=True)
class Priors:
    """Where the hyperparameters are expected.

    Args:
        scale: Mean and standard deviation of the common log scale `s`.
        deviation: Scale of the lengthscales' deviations.
        freedom: Degrees of freedom of the deviations' Student-t.
        choice: Median log lengthscale of a choice's values, and the scale of their deviations.
        trust: Mean and standard deviation of the trust (a normal, cut off at 0).
        reliance: Standard deviation of the reliance on a hint (a normal around 0, cut off there).
        hint_scale: Standard deviation of the log scale of a hint.
        mean: Standard deviation of the constant mean, in standard deviations of the values.
        noise: Mean and standard deviation of the log noise variance, where it is inferred.
        noise_scale: The same of the log factor on the known noise variance. Where candidates
            answer the same questions, they differ by less than their standard errors say.
    """

    scale: tuple[float, float] = (-0.25, 0.5)
    deviation: float = 0.5
    freedom: float = 4.0
    choice: tuple[float, float] = (0.7, 0.5)
    trust: tuple[float, float] = (0.5, 1.0)
    reliance: float = 0.4
    hint_scale: float = 0.5
    mean: float = 1.0
    noise: tuple[float, float] = (-3.0, 1.5)
    noise_scale: tuple[float, float] = (-0.25, 0.4)


def standardize(importance: Tensor) -> Tensor:
    """Return the standardized importance, clipped to two deviations; zeros if it is constant."""
    spread = importance.std() if importance.numel() > 1 else torch.tensor(0.0)
    if not spread > 1e-9:
        return torch.zeros_like(importance)
    return ((importance - importance.mean()) / spread).clamp(-_LARGEST_Z, _LARGEST_Z)
