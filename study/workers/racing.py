"""The trials that a candidate races against."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from ...objectives import MergeObjective
from ...objectives.evaluation.racing import Race, RaceSettings
from ...samplers import is_measured, keeps_to_constraints
from ..first_trials import is_uniform

# User attribute: what every question's answer counts in every objective, null if not asked.
NUMBERS = "numbers"


def race_against(
    trials: Sequence[FrozenTrial], objective: MergeObjective, settings: RaceSettings
) -> Race | None:
    """Return the race against all that was measured so far and keeps to the constraints.

    Every worker makes the same order of questions: it follows from parents and uniform merges.
    Who is better because it breaks a limit takes no other candidate's place.

    Args:
        trials: All of the study.
        objective: That measures the candidate.
        settings: When candidates are stopped.

    Returns:
        None while parents or uniform merges are not all measured.
    """
    first = [trial for trial in trials if is_uniform(trial)]
    if any(not trial.state.is_finished() for trial in first):
        return None
    known = {t.number: _numbers(t) for t in trials if is_measured(t) and NUMBERS in t.user_attrs}
    measured = np.array([known[trial.number] for trial in first if trial.number in known])
    if not len(measured):
        return None
    tasks = [scored.task for scored in objective.questions]
    able = [known[t.number] for t in trials if t.number in known and keeps_to_constraints(t)]
    rivals = np.array(able).reshape(-1, *measured.shape[1:])
    return Race(settings, objective.metrics, tasks, measured, rivals, objective.clusters)


def _numbers(trial: FrozenTrial) -> NDArray[np.float64]:
    rows = trial.user_attrs[NUMBERS]
    return np.array([[np.nan if x is None else x for x in row] for row in rows], dtype=np.float64)
