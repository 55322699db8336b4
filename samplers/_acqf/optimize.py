"""Maximize an acquisition function over the unit cube."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from botorch.acquisition import AcquisitionFunction
from botorch.generation.gen import gen_candidates_scipy
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

# How strongly better raw points are preferred as starts, in standard deviations of the scores.
_GREED = 2.0
_FEW_COLUMNS = (4, 10)
# Proposals are rounded: no measurement can tell finer weights apart, and the last bits of linear
# algebra, which differ between processes (memory alignment), do not reach the next proposal.
_DIGITS = 4
_SAME = 0.5 * 10.0**-_DIGITS
_STEP_SIZES = (0.05, 0.15, 0.4)


@dataclass(frozen=True)
class AcquisitionBudget:
    """What one suggestion may cost.

    Args:
        n_samples: Samples of a measurement's outcome (Sobol).
        n_raw: Points screened to start from.
        n_restarts: Starts of the gradient ascent, all at once.
        n_steps: Its steps at most.
    """

    n_samples: int = 24
    n_raw: int = 300
    n_restarts: int = 5
    n_steps: int = 20


def rounded(points: Tensor) -> Tensor:
    """Return points of the unit cube as they are proposed."""
    return torch.from_numpy(np.round(points.numpy(), _DIGITS))


def best_of(
    acquisition: AcquisitionFunction,
    climbed: Tensor,
    scores: Tensor,
    snapped: Callable[[Tensor], Tensor],
    known: Tensor | None = None,
) -> Tensor:
    """Return the best of some points, a `d`-dim tensor in the unit cube.

    Args:
        acquisition: Scores a `b x 1 x d`-dim tensor.
        climbed: A `p x d`-dim tensor; see `climb`.
        scores: Of the points, `p`-dim.
        snapped: Moves points to the nearest that can be evaluated, where not all can.
        known: A `k x d`-dim tensor of points that are not worth measuring again; one is returned
            where there is nothing else. Defaults to None: there are none.
    """
    finalists = snapped(climbed)
    if finalists is not climbed:
        with torch.no_grad():
            scores = acquisition(finalists.unsqueeze(-2))
    if known is not None:
        scores = scores.masked_fill(repeats(finalists, known), -torch.inf)
    return finalists[scores.argmax()]


def repeats(points: Tensor, known: Tensor) -> Tensor:
    """Return which points are among known ones, `n`-dim.

    Args:
        points: An `n x d`-dim tensor; `rounded`, if they are to be proposed.
        known: A `k x d`-dim tensor.
    """
    return (torch.cdist(points, known, p=torch.inf) < _SAME).any(dim=1)


def climb(
    acquisition: AcquisitionFunction,
    raw: Tensor,
    budget: AcquisitionBudget,
    rng: np.random.Generator,
    bounds: tuple[Tensor | float, Tensor | float] = (0.0, 1.0),
    scores: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return where the ascents ended and where they began, and their scores.

    Args:
        acquisition: Scores a `b x 1 x d`-dim tensor.
        raw: An `r x d`-dim tensor of points to choose the starts from.
        budget: How many starts and steps.
        rng: Chooses the starts.
        bounds: Lower and upper ones, of all columns or `d`-dim. Defaults to the unit cube.
        scores: Of the raw points, `r`-dim. Defaults to None: they are looked up.

    Returns:
        A `p x d`-dim tensor of points in the unit cube, ends first, and a `p`-dim one.
    """
    if scores is None:
        with torch.no_grad():
            scores = acquisition(raw.unsqueeze(-2))
    starts = raw[_choose(scores.numpy(), budget.n_restarts, rng)]
    # Few steps are allowed, and utilities have kinks: an ascent rarely ends by itself. BoTorch
    # turns its warning on for good, so it can only be caught.
    with warnings.catch_warnings(record=True):
        climbed, _ = gen_candidates_scipy(
            starts.unsqueeze(-2), acquisition, *bounds, options={"maxiter": budget.n_steps}
        )
    finalists = torch.cat([climbed.detach().squeeze(-2), starts])
    with torch.no_grad():
        return finalists, acquisition(finalists.unsqueeze(-2))


def _choose(scores: np.ndarray, n: int, rng: np.random.Generator) -> list[int]:
    """Return the best index, and others drawn in proportion to `exp(greed * z-score)`."""
    z = (scores - scores.mean()) / max(float(scores.std()), 1e-12)
    chances = np.exp(_GREED * (z - z.max())) + 1e-300
    drawn = rng.choice(len(z), size=min(n, len(z)), replace=False, p=chances / chances.sum())
    return list(dict.fromkeys([int(z.argmax()), *drawn.tolist()]))[:n]


def raw_points(X: Tensor, means: Tensor, n: int, rng: np.random.Generator) -> Tensor:
    """Return points worth screening, `r x d`-dim: most around the believed front.

    A half of `n` are front points with a few columns moved, a quarter lie on the lines between
    neighbours on the front, an eighth on the diagonal of uniform merges, an eighth anywhere; the
    evaluated points come on top, because measuring one again may be worth most. Where bounds leave
    out what was measured, such as the parents, the nearest points within take its place.

    Args:
        X: An `n x d`-dim tensor of evaluated points, those outside the cube included.
        means: Their posterior means, `n x m`-dim.
        n: How many.
        rng: Draws them.
    """
    dim = X.shape[1]
    rows = is_non_dominated(means).nonzero().flatten()
    front = X[rows[means[rows, 0].argsort()]]
    groups = [X, _moved(front, n // 2, rng), torch.from_numpy(rng.random((n // 8, dim)))]
    groups.append(torch.from_numpy(rng.random((n // 8, 1))).expand(-1, dim))
    if len(front) > 1:
        left = torch.from_numpy(rng.integers(len(front) - 1, size=n // 4))
        share = torch.from_numpy(rng.random((n // 4, 1)))
        groups.append(front[left] * (1 - share) + front[left + 1] * share)
    return torch.cat(groups).clamp(0.0, 1.0)


def _moved(front: Tensor, n: int, rng: np.random.Generator) -> Tensor:
    dim = front.shape[1]
    origins = front[torch.from_numpy(rng.integers(len(front), size=n))]
    n_columns = rng.choice([*_FEW_COLUMNS, dim], size=(n, 1))
    moves = rng.normal(size=(n, dim)) * rng.choice(_STEP_SIZES, size=(n, 1))
    moves *= rng.random((n, dim)) < n_columns / dim
    return (origins + torch.from_numpy(moves)).clamp(0.0, 1.0)
