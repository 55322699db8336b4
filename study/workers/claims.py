"""Who works on which trial, and what becomes of the trials of the dead.

Claims happen under the study's lock, so that the budget is exact with any number of workers and a
proposal sees every trial in flight. Every change is one transaction: a process killed between
any two statements leaves the study as it was before or after, never in between.
"""

import copy
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import Connection

from ...errors import StudyError
from ...samplers import MEASURED
from ..baseline import Baseline
from ..budget import Limits
from ..storage.history import History
from ..storage.ledger import Ending, Ledger
from .batches import BATCH, batch_view
from .proposals import completed, propose

logger = logging.getLogger(__name__)

# Attempts at one candidate after its worker died; a point that kills every worker must end.
MAX_RETRIES = 2

# User attribute of a trial whose result is of an earlier attempt: that attempt's number.
MEASURED_AS = "measured_as"

_RETRIES = "retry_history"
_FIRST = "failed_trial"
_CLONE_OF = "mergefront:clone_of"


class Outcome(Enum):
    """Why a claim gave no trial."""

    WAIT = "all that is left is being evaluated by others"
    DONE = "the budget is complete"


@dataclass(frozen=True)
class Claims:
    """The trials of one study, as its workers share them.

    Args:
        study: With the sampler that proposes new candidates.
        budget: Measured trials at the end.
        space: The parameters of a new candidate.
        batch: Size of synchronous batches; None proposes to whoever is free.
        limits: What ends the study beside the number of trials.
        baseline: Proposes uniform merges before the sampler is asked. Defaults to None: none.
    """

    study: optuna.Study
    budget: int
    space: Mapping[str, BaseDistribution]
    batch: int | None = None
    limits: Limits = field(default_factory=Limits)
    baseline: Baseline | None = None

    @cached_property
    def ledger(self) -> Ledger:
        """Writes to the study."""
        return Ledger(self.study)

    @cached_property
    def _history(self) -> History:
        return History(self.study._study_id)

    def trials(self, connection: Connection) -> list[FrozenTrial]:
        """Return all trials as they are now; they are not to be changed."""
        with connection.begin():
            self.ledger.check_study(connection)
            return self._history.read(connection)

    def claim(self, connection: Connection, worker: Mapping[str, Any]) -> FrozenTrial | Outcome:
        """Take the next trial, queued ones first, as long as the budget has room.

        Args:
            connection: Of the study's lock.
            worker: User attributes that say who evaluates it.
        """
        trials = self.trials(connection)
        count = {state: sum(t.state == state for t in trials) for state in TrialState}
        n_measured = sum(count[state] for state in MEASURED)
        if n_measured >= self.budget:
            return Outcome.DONE
        if (reason := self.limits.reason(trials)) is not None:
            if count[TrialState.RUNNING]:
                return Outcome.WAIT
            logger.warning("The study ends after %d trials: %s.", n_measured, reason)
            return Outcome.DONE
        if n_measured + count[TrialState.RUNNING] >= self.budget:
            return Outcome.WAIT
        queued = [trial for trial in trials if trial.state == TrialState.WAITING]
        if (taken := self._take(connection, queued, trials, worker)) is not None:
            return taken
        trial = self._propose(trials)
        if trial is None:
            return Outcome.WAIT
        trial.user_attrs = {"phase": "search", **trial.user_attrs, **worker}
        with connection.begin():
            return self.ledger.add(connection, trial)

    def _propose(self, trials: list[FrozenTrial]) -> FrozenTrial | None:
        """Return a new candidate; None while a batch is complete and not measured."""
        if self.baseline and (uniform := self.baseline.next(trials)) is not None:
            return uniform
        if self.batch is None:
            return propose(self.study, self.space, trials)
        if (found := batch_view(trials, self.batch)) is None:
            return None
        number, view = found
        trial = propose(self.study, self.space, view)
        trial.user_attrs[BATCH] = number
        return trial

    def _take(
        self,
        connection: Connection,
        queued: Sequence[FrozenTrial],
        trials: list[FrozenTrial],
        worker: Mapping[str, Any],
    ) -> FrozenTrial | None:
        for trial in queued:
            attrs = {"phase": "search", **trial.user_attrs, **worker}
            added = {key: attrs[key] for key in ("phase", *worker)}
            try:
                wish = completed(trial, self.study, self.space, trials)
            except StudyError as error:
                self._refuse(connection, trial, str(error))
                continue
            with connection.begin():
                if self.ledger.take(connection, trial, added, wish):
                    return _started(wish or trial, trial, added)
        return None

    def _refuse(self, connection: Connection, trial: FrozenTrial, reason: str) -> None:
        ending = Ending(TrialState.FAIL, user_attrs={"failure": reason})
        with connection.begin():
            self.ledger.end(connection, trial._trial_id, ending, (TrialState.WAITING,))

    def reclaim(self, connection: Connection, dead: Collection[FrozenTrial]) -> None:
        """Queue again what dead workers were evaluating.

        Args:
            connection: Any; two that reclaim the same trial queue it once.
            dead: Running trials whose workers are gone.
        """
        for trial in dead:
            self.requeue(connection, trial, "its worker died", retry=True)

    def requeue(
        self, connection: Connection, trial: FrozenTrial, reason: str, retry: bool
    ) -> None:
        """End a running trial as FAIL and queue its candidate again, as a whole, at once.

        A candidate with some of its parameters only is not queued: the rest would be proposed
        anew, and the mixture is a point that nobody proposed. What was told of the attempt
        (constraints, the sampler's notes) stays with it.

        Args:
            connection: Any.
            trial: Running.
            reason: Stored as the attribute `failure`.
            retry: Whether the attempt counts against `MAX_RETRIES`.
        """
        history = trial.system_attrs.get(_RETRIES, [])
        whole = self.space.keys() <= trial.params.keys()
        again = whole and (not retry or len(history) < MAX_RETRIES)
        suffix = (
            "" if again else (f" {MAX_RETRIES + 1} times" if whole else " while it was proposed")
        )
        ending = Ending(TrialState.FAIL, user_attrs={"failure": reason + suffix})
        with connection.begin():
            if self.ledger.end(connection, trial._trial_id, ending) and again:
                history = [*history, trial.number] if retry else history
                self.ledger.add(connection, _clone(trial, history))

    def forgive(self, connection: Connection, failed: Collection[FrozenTrial]) -> None:
        """Queue again what failed for a cause outside the candidates; it counts as no attempt.

        Args:
            connection: Of the study's lock.
            failed: Trials that a worker could not measure.
        """
        trials = self.trials(connection)
        for trial in failed:
            heir = heir_of(trials, trials[trial.number])
            history = trial.system_attrs.get(_RETRIES, [])
            with connection.begin():
                if heir.state == TrialState.WAITING:
                    self.ledger.note(connection, heir, {_RETRIES: history})
                elif heir.state == TrialState.FAIL and self.space.keys() <= heir.params.keys():
                    self.ledger.add(connection, _clone(heir, history))

    def adopt(self, connection: Connection, number: int, ending: Ending) -> bool:
        """Keep a result whose worker was considered dead: its candidate was measured.

        The newest attempt at the candidate ends with it, queued or running; where that
        has failed too, a trial is added if the budget has room.

        Args:
            connection: Of the study's lock.
            number: Of the trial that was measured.
            ending: COMPLETE or PRUNED, with the values.

        Returns:
            Whether the study has the result now; False where it has another measurement of the
            same candidate, or its budget is full.
        """
        trials = self.trials(connection)
        heir = heir_of(trials, trials[number])
        measured = trials[number].user_attrs
        if heir.state in MEASURED:
            return False
        in_hand = sum(t.state in (*MEASURED, TrialState.RUNNING) for t in trials)
        if heir.state != TrialState.RUNNING and in_hand >= self.budget:
            return False
        note = {MEASURED_AS: number, "worker": measured.get("worker", "")}
        ending = replace(ending, user_attrs={**ending.user_attrs, **note})
        with connection.begin():
            if not heir.state.is_finished():
                states = (TrialState.WAITING, TrialState.RUNNING)
                return self.ledger.end(connection, heir._trial_id, ending, states)
            self.ledger.add(connection, _completed(heir, ending))
            return True


def _started(whole: FrozenTrial, queued: FrozenTrial, attrs: Mapping[str, Any]) -> FrozenTrial:
    """Return a queued trial as it is once taken, with the parameters of the whole one."""
    taken = copy.deepcopy(queued)
    taken.state = TrialState.RUNNING
    taken.params, taken.distributions = dict(whole.params), dict(whole.distributions)
    taken.user_attrs.update(attrs)
    return taken


def heir_of(trials: list[FrozenTrial], trial: FrozenTrial) -> FrozenTrial:
    """Return the newest attempt at a trial's candidate."""
    for other in trials[trial.number + 1 :]:
        if other.system_attrs.get(_CLONE_OF) == trial.number:
            return heir_of(trials, other)
    return trial


def _clone(trial: FrozenTrial, history: list[int]) -> FrozenTrial:
    kept = {k: v for k, v in trial.user_attrs.items() if k in ("phase", "label")}
    first = trial.system_attrs.get(_FIRST, trial.number)
    return create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=kept,
        # The names that Optuna's own helpers read (`RetryHeartbeatStaleTrialCallback`).
        system_attrs={_FIRST: first, _RETRIES: history, _CLONE_OF: trial.number},
    )


def _completed(trial: FrozenTrial, ending: Ending) -> FrozenTrial:
    """Return a further attempt at a failed trial's candidate, with its result."""
    kept = {k: v for k, v in trial.user_attrs.items() if k != "failure"}
    return create_trial(
        state=ending.state,
        values=list(ending.values) or None,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={**kept, **ending.user_attrs},
        system_attrs={**ending.system_attrs, _CLONE_OF: trial.number},
    )
