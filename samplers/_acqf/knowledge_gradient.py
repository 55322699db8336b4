r"""What one more measurement is worth to those who will pick a model.

A user has a preference `w` over the objectives and picks the reported point with the largest
`u_w(y) = min_j (y_j - ref_j) / w_j` (the Chebyshev utility; its mean over preferences is the R2
indicator, Hansen & Jaszkiewicz 1998). After a measurement at `x` the posterior means move, and
some users pick better. The knowledge gradient (Frazier et al. 2009) is the expected gain,

    KG(x) = mean_w ( E_z max_{a in A + x} u_w(mu(a) + sigma(a, x) z) - max_{a in A} u_w(mu(a)) ),

where `A` are the points evaluated or in flight, `sigma(a, x) = cov(f(a), f(x)) / sqrt(var f(x) +
noise)` and `z` is standard normal, one per objective. Unlike expected improvement it counts what a
measurement tells about *other* points and what noise hides, so measuring a promising point
again competes with measuring a new one. Its cost does not depend on the number of pending points
but through the size of `A`, which is cut to those that could be picked.
"""

from dataclasses import dataclass
from functools import reduce

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.utils.sampling import draw_sobol_normal_samples
from torch import Tensor

from .._gp import Surrogate
from .botorch_surrogate import BoTorchSurrogate

# Smallest utility that gains are measured relative to, and how far each preference's best
# candidates reach: the likeliest, and the likeliest after one deviation of luck.
_SMALLEST_UTILITY = 0.1
_N_BEST = 4
_LUCK = (0.0, 1.0)
# Weight of the plain uncertainty: decides where no measurement promises any gain.
_CURIOSITY = 1e-4
_SMALLEST_WEIGHT = 0.02
# Points that are scored at once: their utilities fit into a processor's cache.
_PART = 4


@dataclass(frozen=True)
class Scale:
    """What utilities are measured in.

    Args:
        reference: An `m`-dim tensor: utility 0.
        span: An `m`-dim tensor: one unit of every objective.
        preferences: A `w x m`-dim tensor of positive weights.
    """

    reference: Tensor
    span: Tensor
    preferences: Tensor

    def utilities(self, values: Tensor) -> Tensor:
        """Return the utility of values `... x m`-dim for every preference, `... x w`-dim."""
        scaled = ((values - self.reference) / self.span).unsqueeze(-2)
        # One objective after the other: a minimum over a short last dimension is slow.
        columns = (scaled[..., j] / self.preferences[:, j] for j in range(scaled.shape[-1]))
        return reduce(torch.minimum, columns)


class KnowledgeGradient(AcquisitionFunction):
    """Expected gain in the utility of the picked point, in percent, mean over preferences.

    Args:
        surrogate: Conditioned on the points in flight.
        candidates: An `n x d`-dim tensor of the points that can be picked.
        scale: Of the utilities.
        n_samples: Sobol samples of the outcome; an odd number is rounded up.
        seed: Of the samples.
    """

    def __init__(
        self, surrogate: Surrogate, candidates: Tensor, scale: Scale, n_samples: int, seed: int
    ) -> None:
        super().__init__(BoTorchSurrogate(surrogate))
        self._surrogate, self._scale = surrogate, scale
        means, deviations = surrogate.posterior(candidates)
        keep = _plausible(means, deviations, scale)
        self._points, self._means = candidates[keep], means[keep]
        best = scale.utilities(self._means).amax(dim=0)
        widest = scale.preferences.amax(dim=-1)
        self._gain_unit = torch.maximum(best, _SMALLEST_UTILITY / widest)
        self._best = best
        half = draw_sobol_normal_samples(
            len(surrogate.fits), (n_samples + 1) // 2, dtype=torch.double, seed=seed
        )
        # In pairs that cancel, so a point that nothing can overtake gains exactly nothing.
        self._z = torch.cat([half, -half])
        self._halves = [fit.process.project(self._points)[1] for fit in surrogate.fits]

    def forward(self, X: Tensor) -> Tensor:
        """Score a `b x 1 x d`-dim tensor, `b`-dim."""
        points = X.squeeze(-2)
        columns = [self._outcomes(points, j) for j in range(len(self._halves))]
        outcomes = torch.stack([outcome for outcome, _ in columns], dim=-1)
        unknown = torch.stack([deviation for _, deviation in columns]).mean(dim=0)
        gains = torch.cat([self._gains(part) for part in outcomes.split(_PART)])
        return 100.0 * gains + _CURIOSITY * unknown

    def _gains(self, outcomes: Tensor) -> Tensor:
        """Return the mean gain of outcomes `b x z x n+1 x m`-dim, `b`-dim."""
        utilities = self._scale.utilities(outcomes)  # b x z x n+1 x w
        gains = (utilities.amax(dim=2) - self._best) / self._gain_unit
        return gains.mean(dim=(1, 2))

    def _outcomes(self, points: Tensor, j: int) -> tuple[Tensor, Tensor]:
        """Return posterior means after measuring at each point, and how unknown it is before.

        Args:
            points: A `b x d`-dim tensor.
            j: Number of the objective.

        Returns:
            Means of the candidates and the point itself, `b x z x n+1`-dim, in the objective's
            unit; standardized deviations, `b`-dim.
        """
        process = self._surrogate.fits[j].process
        kernel = process.kernel
        mean, half = process.project(points)
        variance = (kernel.variance(points) - half.square().sum(0)).clamp_min(1e-9)
        covariance = kernel(points, self._points) - half.T @ self._halves[j]
        moves = torch.cat([covariance, variance[:, None]], dim=1)
        noise = process.expected_noise(mean.detach())
        moves = process.spread * moves / (variance + noise).sqrt()[:, None]
        here = (process.location + process.spread * mean)[:, None]
        means = torch.cat([self._means[:, j].expand(len(points), -1), here], dim=1)
        return means[:, None, :] + self._z[:, j, None] * moves[:, None, :], variance.sqrt()


def _plausible(means: Tensor, deviations: Tensor, scale: Scale) -> Tensor:
    """Return indices of the points that some preference may come to pick."""
    k = min(_N_BEST, len(means))
    rows = [scale.utilities(means + luck * deviations).topk(k, dim=0).indices for luck in _LUCK]
    indices: Tensor = torch.cat(rows).unique()
    return indices


def worth_knowing(means: Tensor, scale: Scale, n: int, likely: Tensor | None = None) -> Tensor:
    """Return indices of the points that proposals depend on most, in order.

    Two thirds are those that come nearest to the best for some preference, a third are spread
    evenly over the rest, so that what is bad stays known.

    Args:
        means: An `N x m`-dim tensor of posterior means.
        scale: Of the utilities.
        n: How many, at most.
        likely: An `N`-dim tensor: which points may be picked at all; they come first. Defaults
            to None: all.
    """
    if len(means) <= n:
        return torch.arange(len(means))
    utilities = scale.utilities(means)
    likely = torch.ones(len(means), dtype=torch.bool) if likely is None else likely
    lacking = (utilities - utilities[likely].amax(dim=0)).amax(dim=1)
    behind = lacking - lacking.max() + lacking[likely].min() - 1.0
    order = torch.where(likely, lacking, behind).argsort(descending=True)
    n_near = 2 * n // 3
    spread = torch.linspace(n_near, len(order) - 1, n - n_near).round().long()
    return torch.cat([order[:n_near], order[spread]]).sort().values


def preference_grid(n_objectives: int, n: int = 19) -> Tensor:
    """Return positive weights that sum to one.

    Args:
        n_objectives: `m`.
        n: How many for two objectives; twice as many for more.

    Returns:
        A `w x m`-dim tensor: evenly spaced for two objectives, spread over the simplex for more.
    """
    if n_objectives == 1:
        return torch.ones((1, 1), dtype=torch.double)
    if n_objectives == 2:
        first = torch.arange(1, n + 1, dtype=torch.double) / (n + 1)
        return torch.stack([first, 1.0 - first], dim=1)
    # Spacings of sorted uniforms are uniform on the simplex; Sobol points spread them.
    engine = torch.quasirandom.SobolEngine(n_objectives - 1, scramble=True, seed=0)
    cuts = engine.draw(2 * n, dtype=torch.double).sort(dim=1).values
    ends = torch.cat([torch.zeros(2 * n, 1), cuts, torch.ones(2 * n, 1)], dim=1)
    spacings = ends.diff(dim=1).clamp_min(_SMALLEST_WEIGHT)
    return spacings / spacings.sum(dim=1, keepdim=True)
