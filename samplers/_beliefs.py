"""What a study's measurements tell of its objectives and of its constraints.

Up to `MOST_POINTS` trials every process is conditioned on all of them. Beyond, half as many are
spread evenly over the study, and as many again are those that matter by what the first tell: near
the best for some preference. Thus no trial is chosen for its own luck, and what is left out makes
deviations larger, not wrong.
"""

from collections.abc import Sequence

import torch
from optuna.trial import FrozenTrial

from ._acqf import Scale, front_span, infer_reference_point, preference_grid, worth_knowing
from ._constraints import Feasibility, fit_feasibility
from ._gp import MOST_POINTS, Observations, Surrogate, Trust, fit_surrogate, spread_rows
from ._trials.search_space import UnitCube


def fit_beliefs(
    trials: Sequence[FrozenTrial],
    observations: Observations,
    cube: UnitCube,
    among: Sequence[FrozenTrial],
    trust: Trust,
) -> tuple[Surrogate, Feasibility]:
    """Fit the objectives' processes and the constraints'.

    Args:
        trials: Measured, at least one.
        observations: Of the same trials in the same order.
        cube: Of the observations.
        among: All trials; see `fit_feasibility`.
        trust: See `fit_surrogate`.
    """
    X = observations.X
    most = MOST_POINTS if len(X) <= MOST_POINTS else MOST_POINTS // 2
    surrogate = fit_surrogate(observations, trust, most=most)
    feasibility = fit_feasibility(trials, observations, cube, among, most)
    if len(X) <= MOST_POINTS:
        return surrogate, feasibility
    means, likely = surrogate.means(X), feasibility.likely(X)
    reference = infer_reference_point(means[likely])
    scale = Scale(reference, front_span(means[likely], reference), preference_grid(means.shape[1]))
    near = worth_knowing(means, scale, most, likely)
    rows = torch.cat([spread_rows(len(X), most), near]).unique()
    return surrogate.restricted(rows), feasibility.knowing(near, most)
