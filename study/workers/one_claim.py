"""One candidate, measured whatever the budget says, and nothing beside it.

It is queued under the study's lock and claimed by its number. Whatever ends its worker, it is not
left in the queue, where a later run would spend its budget on it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from ...samplers import MEASURED
from ..storage.ledger import Ending, Ledger
from ..storage.locks import StudyLock
from .claims import Claims, Outcome, heir_of

# Weights that differ less are one model.
_SAME = 1e-6


@dataclass(frozen=True, kw_only=True)
class OneClaim(Claims):
    """Claims of one queued candidate; no limit ends them.

    Args:
        number: Of its trial.
    """

    number: int

    def claim(self, connection: Connection, worker: Mapping[str, Any]) -> FrozenTrial | Outcome:
        """Take the candidate, or the newest attempt at it; see `Claims.claim`."""
        trials = self.trials(connection)
        newest = heir_of(trials, trials[self.number])
        if newest.state.is_finished():
            return Outcome.DONE
        if newest.state == TrialState.RUNNING:
            return Outcome.WAIT
        return self._take(connection, [newest], trials, worker) or Outcome.WAIT


def measured_already(candidate: FrozenTrial, trials: list[FrozenTrial]) -> FrozenTrial | None:
    """Return the measured trial that is the same model; None if there is none."""
    found = (t for t in trials if t.state in MEASURED and _is_same(t.params, candidate.params))
    return next(found, None)


def queue_once(study: optuna.Study, lock: StudyLock, candidate: FrozenTrial) -> int:
    """Queue a candidate, unless it waits or is in hand already; return its trial's number.

    Args:
        study: To which it is added.
        lock: The study's.
        candidate: With all its parameters.
    """
    ledger = Ledger(study)
    with lock.hold() as connection:
        for trial in study.get_trials(deepcopy=False):
            if not trial.state.is_finished() and _is_same(trial.params, candidate.params):
                return trial.number
        with connection.begin():
            return ledger.add(connection, candidate).number


def withdraw(study: optuna.Study, lock: StudyLock, number: int) -> FrozenTrial:
    """Take every attempt at a candidate out of the queue; return the newest one.

    Only what was queued for the same reason is taken out: a user's own wish stays.
    """
    ledger = Ledger(study)
    with lock.hold() as connection:
        trials = study.get_trials(deepcopy=False)
        newest = heir_of(trials, trials[number])
        why = f"measured as trial {newest.number}" if newest.state in MEASURED else "not measured"
        ending = Ending(TrialState.FAIL, user_attrs={"failure": f"taken out of the queue: {why}"})
        phase = newest.user_attrs.get("phase")
        for trial in trials:
            if trial.user_attrs.get("phase") == phase and _is_same(trial.params, newest.params):
                with connection.begin():
                    ledger.end(connection, trial._trial_id, ending, (TrialState.WAITING,))
    return newest


def _is_same(params: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if params.keys() != other.keys():
        return False
    pairs = [(value, other[name]) for name, value in params.items()]
    return all(
        abs(a - b) <= _SAME if isinstance(a, float) and isinstance(b, float) else a == b
        for a, b in pairs
    )
