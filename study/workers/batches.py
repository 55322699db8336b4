"""Synchronous batches: what a proposal may know, and when the next batch may begin."""

import copy
from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState

# User attribute: number of the batch that a proposed trial belongs to.
BATCH = "batch"


def batch_view(trials: Sequence[FrozenTrial], size: int) -> tuple[int, list[FrozenTrial]] | None:
    """Return the number of the next proposal's batch, and the history that it is made from.

    All of a batch is proposed from what was measured before it began: its own trials count as
    running, finished or not. A new batch begins when nothing is running or queued.

    Args:
        trials: Of the study, in the order of their numbers.
        size: Of a batch.

    Returns:
        None while a complete batch is being measured.
    """
    current = max((trial.user_attrs.get(BATCH, -1) for trial in trials), default=-1)
    members = {trial.number for trial in trials if trial.user_attrs.get(BATCH) == current}
    if 0 < len(members) < size:
        return current, [_running(t) if t.number in members else t for t in trials]
    if any(not trial.state.is_finished() for trial in trials):
        return None
    return current + 1, list(trials)


def _running(trial: FrozenTrial) -> FrozenTrial:
    """Return a copy that hides what was measured."""
    hidden = copy.copy(trial)
    hidden.state, hidden.values, hidden.datetime_complete = TrialState.RUNNING, None, None
    return hidden
