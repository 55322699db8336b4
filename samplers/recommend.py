r"""Recommend points that nobody evaluated: for a preference, the best convex combination.

A user with the preference `w` wants the point `x` with the largest utility
`u_w(y) = min_j (y_j - ref_j) / w_j` (see `_acqf/knowledge_gradient.py`). The points that a noisy
search has evaluated are a poor choice to pick from: each is known by its own few questions, and
none is the best there is. The posterior knows more than its values at them. So

    maximize  E u_w(mu(x) + CAUTION * sigma(x) z)   over   x = softmax(a) X,

where `X` are the evaluated points: nothing is claimed where nothing was measured, and a wrong
importance is not believed there. For two objectives the expectation of the smaller of two normals
is Clark's closed form (1961); for more it is a mean over draws. With constraints it is multiplied
by the probability that they are kept. Measured in docs/benchmarks/sampler.md.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from optuna import Study
from torch import Tensor

from ._acqf import preference_grid
from ._gp import Trust
from ._threads import one_thread
from ._trials.knowledge import check_point
from .adviser import Adviser, Recommendation
from .denoise import fit_study

Preference = float | Sequence[float]


def recommend(
    study: Study,
    preferences: Iterable[Preference] | None = None,
    reference_point: Sequence[float] | None = None,
    *,
    span: Sequence[float] | None = None,
    importance: Mapping[str, float] | None = None,
    trust: Trust | None = None,
) -> list[Recommendation]:
    """Return what to take for each preference: a convex combination, or the best evaluated trial.

    Works on any Optuna study. Where the predicted gain over the best evaluated trial is not
    clear, that trial is named. Choices, integers and steps keep the values of an evaluated trial.

    Args:
        study: With one objective or more.
        preferences: Weights of the objectives, one row each, positive; for two objectives a
            number is the weight of the first. Defaults to None: 19 for two objectives, 38 for
            more.
        reference_point: One value an objective, in its own direction: utility 0. Defaults to
            None: inferred from the denoised front.
        span: What counts as one unit of every objective, positive. Defaults to None: how far the
            denoised front reaches beyond the reference point.
        importance: See `denoise`.
        trust: The same.

    Returns:
        One a preference, in their order; empty if there is no finished trial, or none is believed
        to keep to the constraints.

    Raises:
        ValueError: If a preference, the reference point or the span do not fit the objectives.
    """
    m = len(study.directions)
    weights = preference_weights(preferences, m)
    check_point("reference_point", reference_point, m)
    check_point("span", span, m, lowest=0.0)
    model = fit_study(study, importance, trust)
    if model is None:
        return []
    adviser = Adviser.of(model, study, reference_point, span)
    with one_thread():
        return adviser.recommend(weights)


def preference_weights(preferences: Iterable[Preference] | None, m: int) -> Tensor:
    """Return preferences as a `w x m`-dim tensor of positive weights that sum to one.

    Raises:
        ValueError: If one does not fit.
    """
    if preferences is None:
        return preference_grid(m)
    rows = [_row(preference, m) for preference in preferences]
    return torch.tensor(rows, dtype=torch.double).reshape(-1, m)


def _row(preference: Preference, m: int) -> list[float]:
    told = np.asarray(preference, dtype=float)
    row = np.array([told, 1.0 - told]) if told.ndim == 0 and m == 2 else np.atleast_1d(told)
    fits = row.shape == (m,) and np.isfinite(row).all() and (row > 0).all()
    weights = _of_one(row) if fits else []
    # Beside one of 1e300, one of 1e-300 rounds to none.
    if not weights or min(weights) == 0:
        raise ValueError(
            f"A preference must be {m} positive weights, one an objective"
            f"{', or a number between 0 and 1' if m == 2 else ''}, but got {preference}."
        )
    return weights


def _of_one(row: NDArray[np.float64]) -> list[float]:
    """Return weights that sum to one, also of such whose sum is no number any more."""
    with np.errstate(over="ignore"):
        total = row.sum()
    scaled = row if np.isfinite(total) else row / row.max()
    weights: list[float] = (scaled / scaled.sum()).tolist()
    return weights
