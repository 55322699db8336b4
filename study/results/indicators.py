"""Quality of a front as a set of points: how near, how even.

Points are maximized and scaled: 0 is the reference point, 1 the best value of any front compared.
"""

import numpy as np
from numpy.typing import NDArray

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
