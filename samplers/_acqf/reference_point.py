"""Where hypervolume is measured from, when the user does not say."""

import torch
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

_MARGIN = 0.1


def infer_reference_point(Y: Tensor) -> Tensor:
    """Return the worst value of every objective on the front, less a tenth of the front's range.

    Only the front counts, so one disastrous trial does not move it. (Ishibuchi et al. 2018; as
    in BoTorch's function of this name, but where all points share a value in an objective the
    margin is a tenth of that value, or of 1.)

    Args:
        Y: An `n x m`-dim tensor of values to maximize, `n >= 1`.

    Returns:
        An `m`-dim tensor.
    """
    front = Y[is_non_dominated(Y)]
    worst, best = front.amin(dim=0), front.amax(dim=0)
    span = best - worst
    scale = torch.where(worst.abs() > 0, worst.abs(), torch.ones_like(worst))
    return worst - _MARGIN * torch.where(span > 0, span, scale)
