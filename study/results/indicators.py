"""Quality of a front as a set of points: how much it covers, how near, how even.

For nearness and evenness points are maximized and scaled: 0 is the reference point, 1 the best
value of any front compared.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume
from botorch.utils.multi_objective.pareto import is_non_dominated
from numpy.typing import NDArray
from optuna._hypervolume import compute_hypervolume
from optuna.trial import FrozenTrial
from torch import Tensor

from ...samplers import Adviser, signs
from .uniform_curve import curve_points, joint_draws

# Draws of an interval; fewer of four objectives, where a volume takes long, and none of more,
# where it takes seconds.
_N_DRAWS, _N_SLOW, _SLOW_FROM, _MOST = 256, 64, 4, 4
# The curve has many points: seconds from four objectives on.
_MOST_OF_CURVES = 3
_INTERVAL = (0.025, 0.975)

Array = NDArray[np.float64]


def non_dominated(points: Array) -> Array:
    """Return the points that no other dominates.

    Args:
        points: An `n x m`-dim array.
    """
    at_least = np.all(points[:, None] >= points[None], axis=2)
    better = np.any(points[:, None] > points[None], axis=2)
    front: Array = points[~np.any(at_least & better, axis=0)]
    return front


def igd_plus(front: Array, best: Array) -> float:
    """Return the modified inverted generational distance; 0 is perfect.

    Mean over the best known points of the distance to the nearest point of the front, where only
    what the front lacks counts (Ishibuchi et al. 2015).

    Args:
        front: An `n x m`-dim array.
        best: A `k x m`-dim array: non-dominated points of all fronts compared.
    """
    lacking = np.maximum(best[:, None] - front[None], 0.0)
    return float(np.linalg.norm(lacking, axis=2).min(axis=1).mean())


def spacing(front: Array) -> float:
    """Return Schott's spacing: 0 for a front whose points are evenly spread.

    The standard deviation of every point's distance (of the first norm) to its nearest
    neighbour; nan for fewer than three points.

    Args:
        front: An `n x m`-dim array.
    """
    if len(front) < 3:
        return float("nan")
    distances = np.abs(front[:, None] - front[None]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(axis=1).std(ddof=1))


def hypervolume_history(
    values: Tensor, reference_point: Sequence[float], directions: Sequence[Any]
) -> list[float]:
    """Return the hypervolume of the first value, of the first two, and so on.

    Args:
        values: An `n x m`-dim tensor in the objectives' own directions.
        reference_point: One value an objective, in its own direction.
        directions: Of a study.
    """
    flips = signs(directions)
    front, history = values[:0], [0.0]
    for value in values:
        # What an earlier value is as good as in everything adds nothing: most of a long study.
        if bool(((front - value) * flips >= 0).all(dim=1).any()):
            history.append(history[-1])
            continue
        beaten = ((value - front) * flips >= 0).all(dim=1)
        front = torch.cat([front[~beaten], value[None]])
        history.append(hypervolume(front, reference_point, directions))
    return history[1:]


def hypervolume(
    values: Tensor, reference_point: Sequence[float], directions: Sequence[Any]
) -> float:
    """Return the volume that dominates the reference point, in the objectives' own units.

    Args:
        values: An `n x m`-dim tensor in the objectives' own directions.
        reference_point: One value an objective, in its own direction.
        directions: Of a study.
    """
    flips = signs(directions)
    reference = torch.tensor(list(reference_point), dtype=torch.double) * flips
    if len(flips) == 1:  # a length; BoTorch's class wants two objectives at least
        return max(0.0, float((values * flips).max() - reference)) if len(values) else 0.0
    maximized = values * flips
    front = maximized[is_non_dominated(maximized)]
    return float(Hypervolume(reference).compute(front))


def hypervolume_interval(
    adviser: Adviser, front: Sequence[FrozenTrial]
) -> tuple[float, float] | None:
    """Return the 95 % interval of a front's hypervolume, by what is believed of its models.

    Models are drawn together from the surrogate's posterior, deviations doubled: a search goes
    where its surrogate is optimistic. A front that is drawn covers more than the one it is drawn
    around, as a measured one covers more than the true one: by so much the interval lies below
    (a pivotal interval). It is about the questions that were asked: on others the front may be
    worse, which `validate` measures.

    Args:
        adviser: Of the study, with its reference point.
        front: Trials of the adviser's model.

    Returns:
        None for more than four objectives: it would take minutes.
    """
    if len(adviser.span) > _MOST:
        return None
    numbers = [trial.number for trial in adviser.model.trials]
    rows = [numbers.index(trial.number) for trial in front]
    return _pivotal(adviser, adviser.model.observations.X[rows], adviser.model.believed[0][rows])


def curve_interval(adviser: Adviser) -> tuple[float, float] | None:
    """Return the same of the uniform curve's hypervolume; None where there is no curve, too."""
    points = curve_points(adviser)
    if points is None or not len(points) or len(adviser.span) > _MOST_OF_CURVES:
        return None
    return _pivotal(adviser, points, adviser.model.surrogate.means(points))


def _pivotal(adviser: Adviser, points: Tensor, means: Tensor) -> tuple[float, float]:
    few = joint_draws(adviser, points)[: _N_DRAWS if len(adviser.span) < _SLOW_FROM else _N_SLOW]
    low, high = np.quantile([_volume(adviser, each) for each in few], _INTERVAL)
    volume = _volume(adviser, means)
    return max(0.0, min(volume, 2 * volume - float(high))), max(volume, 2 * volume - float(low))


def _volume(adviser: Adviser, maximized: Tensor) -> float:
    """Return a hypervolume, in a tenth of BoTorch's time: hundreds of them are wanted."""
    reference = adviser.reference.numpy()
    # What is worse than the point adds nothing.
    losses = -np.maximum(maximized.numpy(), reference)
    return float(compute_hypervolume(losses, -reference))
