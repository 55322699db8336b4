"""How far values on other questions lie from those on the questions of a study.

Candidates that answer the same questions share what is peculiar to those: it is in every standard
error, and averages out in no estimate. Which candidate is better hardly depends on it; how good
one is on other questions does. Where each candidate answers its share of a pool, the questions of
the whole pool are what is peculiar, and candidates share so much less.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from optuna.trial import FrozenTrial
from torch import Tensor

from .._gp import NOISE_FLOOR, pooled_noise
from .equating import read_answers
from .measurements import Measurements, standard_errors


@dataclass(frozen=True)
class QuestionSampling:
    """What the questions leave uncertain, for candidates of the same value alike.

    Args:
        values: Of the trials, an `n x m`-dim tensor.
        variances: What each trial tells of it, an `n x m`-dim tensor; a column of NaN where
            nothing is known.
    """

    values: Tensor
    variances: Tensor

    def deviations(self, values: Tensor) -> Tensor:
        """Return the standard deviation for candidates of these values, `b x m`-dim.

        A mean over the trials that cannot be told from them, as the surrogate's noise is.

        Args:
            values: A `b x m`-dim tensor, in the study's own directions.
        """
        columns = []
        for at, y, told in zip(values.T, self.values.T, self.variances.T, strict=True):
            if bool((told == 0).all()):  # known exactly, whatever is asked
                columns.append(torch.zeros_like(at))
                continue
            floor = NOISE_FLOOR * float(y.var()) if len(y) > 1 else 0.0
            pooled = pooled_noise(at, y, told.clamp_min(max(floor, 1e-300)))
            columns.append(pooled.nan_to_num(0.0).sqrt())
        return torch.stack(columns, dim=1)


def question_sampling(
    trials: Sequence[FrozenTrial], known: Measurements, same_questions: bool
) -> QuestionSampling | None:
    """Return what the questions leave uncertain; None where nothing tells which were asked.

    Args:
        trials: Measured (`finite_trials`), at least one.
        known: Their measurements.
        same_questions: Whether trials without `answers` all answered the same questions.
    """
    m = known.values.shape[1]
    if not (same_questions or any(read_answers(trial, m) is not None for trial in trials)):
        return None
    told = standard_errors(trials)
    own = torch.full_like(known.values, torch.nan) if told is None else told.square()
    if bool(own.isnan().any()):
        own = torch.where(own.isnan(), _of_answers(trials, m), own)
    return QuestionSampling(known.values, own * known.sizes[:, None] * known.left)


def _of_answers(trials: Sequence[FrozenTrial], m: int) -> Tensor:
    """Return each value's variance as its answers tell it, `n x m`-dim; NaN without answers."""
    sheets = (read_answers(trial, m) for trial in trials)
    rows = [[torch.nan] * m if sheet is None else sheet.variances() for sheet in sheets]
    return torch.tensor(rows, dtype=torch.double)
