"""Where hypervolume is measured from, when the user does not say."""

import torch
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

_MARGIN = 0.1
_ENOUGH = 4


def infer_reference_point(Y: Tensor) -> Tensor:
    """Return the worst value of every objective on the front, less a tenth of the front's range.

    Only the front counts, so one disastrous trial does not move it; where one point dominates all
    others, the layers behind it count until there are four points, because a single point says
    nothing of the trade-off. (Ishibuchi et al. 2018; as
    in BoTorch's function of this name, but where all points share a value in an objective the
    margin is a tenth of that value, or of 1.)

    Args:
        Y: An `n x m`-dim tensor of values to maximize, `n >= 1`.

    Returns:
        An `m`-dim tensor.
    """
    front = _wide_front(Y)
    worst, best = front.amin(dim=0), front.amax(dim=0)
    span = best - worst
    scale = torch.where(worst.abs() > 0, worst.abs(), torch.ones_like(worst))
    return worst - _MARGIN * torch.where(span > 0, span, scale)


def _wide_front(Y: Tensor) -> Tensor:
    layer = is_non_dominated(Y)
    front, rest = Y[layer], Y[~layer]
    if len(front) > 1 or Y.shape[1] == 1:
        return front
    while len(rest) and len(front) < _ENOUGH:
        layer = is_non_dominated(rest)
        if not layer.any():  # beliefs that are no numbers have no best among them
            break
        front, rest = torch.cat([front, rest[layer]]), rest[~layer]
    return front


def front_span(Y: Tensor, reference: Tensor) -> Tensor:
    """Return how far the front reaches beyond the reference point, an `m`-dim positive tensor.

    Args:
        Y: An `n x m`-dim tensor of values to maximize, `n >= 1`.
        reference: An `m`-dim tensor. Where no value beats it, the span is that of all values.
    """
    reach = Y[is_non_dominated(Y)].amax(dim=0) - reference
    spread = Y.amax(dim=0) - Y.amin(dim=0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    return torch.where(reach > 0, reach, spread)
