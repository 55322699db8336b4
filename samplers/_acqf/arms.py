"""Maximize an acquisition function over the arms of a study, and the weights under each."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from botorch.acquisition import AcquisitionFunction
from torch import Tensor

from .optimize import AcquisitionBudget, climb, raw_points, repeats

# Every arm is screened, at so many points at least; ascents are for the few that promise most.
_FEWEST_RAW = 24
_MOST_CLIMBED = 3
# Share of the best arm's score below which an ascent is not worth its time.
_PROMISING = 0.5


@dataclass(frozen=True)
class Choices:
    """What there is to choose from.

    Args:
        fixed: An `arms x d`-dim tensor: what each arm fixes, NaN where it is free.
        joined: Moves points that are one, such as the base under every arm, to one place.
        known: A `k x d`-dim tensor of points that are not worth measuring again; None if all may
            be.
        is_log: Whether points are scored by a logarithm.
    """

    fixed: Tensor
    joined: Callable[[Tensor], Tensor]
    known: Tensor | None = None
    is_log: bool = False

    def worth_a_look(self, points: Tensor) -> Tensor:
        """Keep points of an arm that stay in it and are not known, if there are any."""
        left_out = (self.joined(points) != points).any(dim=1)
        if self.known is not None:
            left_out |= repeats(points, self.known)
        return points if bool(left_out.all()) else points[~left_out]


def screen(
    fixed: Tensor,
    X: Tensor,
    means: Callable[[Tensor], Tensor],
    n: int,
    rng: np.random.Generator,
) -> Tensor:
    """Return points of one arm worth looking at: its own, and those of others moved into it.

    Args:
        fixed: A `d`-dim tensor: what the arm fixes, NaN where it is free.
        X: An `n x d`-dim tensor of evaluated points of all arms.
        means: Points -> posterior means, `n x m`-dim.
        n: How many points beside its own.
        rng: Draws them.
    """
    free = fixed.isnan()
    moved = torch.where(free, X, fixed)
    own = X[(free | (fixed == X)).all(dim=1)].clamp(0.0, 1.0)
    raw = raw_points(moved, means(moved), n, rng)[len(X) :]
    return torch.cat([own, torch.where(free, raw, fixed)])


def climb_arms(
    acquisition: AcquisitionFunction,
    choices: Choices,
    X: Tensor,
    means: Callable[[Tensor], Tensor],
    budget: AcquisitionBudget,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Return where the ascents ended and began, and their scores, as `climb` does.

    Args:
        acquisition: Scores a `b x 1 x d`-dim tensor.
        choices: The arms.
        X: An `n x d`-dim tensor of evaluated points.
        means: Points -> posterior means, `n x m`-dim.
        budget: For all arms together, but for the fewest points that each is screened at.
        rng: Draws points and starts.
    """
    arms = choices.fixed
    n = max(_FEWEST_RAW, budget.n_raw // len(arms))
    screens = [choices.worth_a_look(screen(fixed, X, means, n, rng)) for fixed in arms]
    with torch.no_grad():
        scores = [acquisition(raw.unsqueeze(-2)) for raw in screens]
    best = torch.stack([each.max() for each in scores])
    order = best.argsort(descending=True)[:_MOST_CLIMBED].tolist()
    least = best.max() + math.log(_PROMISING) if choices.is_log else _PROMISING * best.max()
    chosen = [k for k in order if best[k] >= least or k == order[0]]
    few = replace(budget, n_restarts=max(1, budget.n_restarts // len(chosen)))
    ends = []
    for k in chosen:
        bounds = (arms[k].nan_to_num(0.0), arms[k].nan_to_num(1.0))
        ends.append(climb(acquisition, screens[k], few, rng, bounds, scores[k]))
    return torch.cat([points for points, _ in ends]), torch.cat([ended for _, ended in ends])
