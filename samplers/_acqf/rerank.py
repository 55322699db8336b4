"""AP-BMM's gap-aware re-ranking of a pool of candidates, term by term.

A candidate's score is its share of the pool's best acquisition, plus a reward for lying in a wide
gap of the front, less a penalty for lying near what is already being measured:

    score = exp(a - max a) + gap * G - proximity * P.

All three terms lie in [0, 1] by themselves. The released code rescales each to the pool's own
minimum and maximum, so that differences of no meaning count as much as any; measures gaps
in raw units, where tokens drown accuracy; and on the observed front, whose points are the lucky
ones. Here gaps are measured between denoised points, in units of the front's range. Its pool is a
batch proposed in sequence; here it is where several ascents of the one acquisition ended
and began, at a sixth of the cost.
"""

from dataclasses import dataclass

import torch
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

_DECAY = 4.0  # AP-BMM's exp(-4 distance), for points of the unit square


@dataclass(frozen=True)
class Rerank:
    """Weights of the terms; 0 switches one off.

    Args:
        gap: Reward for lying in a gap of the front.
        proximity: Penalty for lying near a point in flight.
        pool: Ascents of the acquisition, whose ends and starts are compared.
    """

    gap: float = 0.25
    proximity: float = 0.15
    pool: int = 6

    def scores(
        self, gains: Tensor, means: Tensor, points: Tensor, front: Tensor, taken: Tensor
    ) -> Tensor:
        """Return the score of every candidate, a `p`-dim tensor.

        Args:
            gains: Log acquisition values, `p`-dim.
            means: Posterior means, `p x m`-dim, to maximize.
            points: A `p x d`-dim tensor in the unit cube.
            front: Posterior means of what was measured, `n x m`-dim.
            taken: Points in flight, `t x d`-dim.
        """
        score = (gains - gains.max()).exp()
        score = score + self.gap * frontier_gap(means, front)
        return score - self.proximity * proximity(points, taken)


def frontier_gap(means: Tensor, values: Tensor) -> Tensor:
    """Return how wide the gap of the front is that each candidate would fill, `p`-dim in [0, 1].

    A gap is a pair of neighbours on the front, by the first objective; a candidate counts for
    the gaps whose middle it comes near, by a Gaussian as wide as the mean gap. 0 for fewer than
    two points of the front, and for other than two objectives, where neighbours have no order.

    Args:
        means: Posterior means of the candidates, `p x m`-dim, to maximize.
        values: Of what was measured, `n x m`-dim; the front is found in them.
    """
    front = values[is_non_dominated(values)]
    if len(front) < 2 or means.shape[1] != 2:
        return torch.zeros(len(means), dtype=means.dtype)
    front = front[front[:, 0].argsort()]
    span = front.amax(dim=0) - front.amin(dim=0)
    span = torch.where(span > 0, span, torch.ones_like(span))
    scaled, candidates = front / span, means / span
    lengths = (scaled[1:] - scaled[:-1]).norm(dim=1)
    middles = (scaled[1:] + scaled[:-1]) / 2
    width = 2**0.5 / len(lengths)
    near = torch.exp(-0.5 * (torch.cdist(candidates, middles) / width).square())
    nearest: Tensor = (near * lengths / lengths.max().clamp_min(1e-12)).amax(dim=1)
    return nearest


def proximity(points: Tensor, taken: Tensor) -> Tensor:
    """Return how near each candidate is to a point in flight, `p`-dim in [0, 1].

    Distances count per dimension, `exp(-4 |x - z| / sqrt(d / 2))`: without, the term vanishes in
    36 dimensions, where any two points are far apart.

    Args:
        points: A `p x d`-dim tensor in the unit cube.
        taken: A `t x d`-dim tensor.
    """
    if not len(taken):
        return torch.zeros(len(points), dtype=points.dtype)
    nearest = torch.cdist(points, taken).amin(dim=1)
    near: Tensor = torch.exp(-_DECAY * nearest / (points.shape[1] / 2) ** 0.5)
    return near
