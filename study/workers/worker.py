"""One worker: claim, evaluate, write the result to disk, deliver it."""

import logging
import os
import socket
import sqlite3
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TypeVar

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from ...errors import EngineError, StudyError
from ...objectives import Measurement, MergeObjective
from ...objectives.evaluation.racing import Race
from ...objectives.evaluation.rotation import answers_attribute
from ..baseline import baseline_of
from ..first_trials import is_uniform, search_space
from ..seeding import fingerprint_of
from ..spec.inputs import StudyInputs
from ..storage.artifacts import asked_of
from ..storage.connection import artifact_store, state_dir, study_lock
from ..storage.identity import identity_of
from ..storage.ledger import Ending
from ..storage.outages import through_outages
from .claims import Claims, Outcome
from .liveness import LocalWorkers, Pulse, dead_trials
from .racing import NUMBERS, race_against
from .room import NO_ROOM, Room
from .spool import Result, Spool
from .termination import Interrupted, Termination, undisturbed

logger = logging.getLogger(__name__)

# Failures in a row after which something other than the candidates must be wrong.
MAX_FAILURES = 3
# While all that is left is in other hands; many that look often would keep the lock busy.
_SHORTEST_POLL, _LONGEST_POLL = 0.5, 4.0

# What is no candidate's fault: the machine, or what is installed on it.
OUTSIDE = (
    MemoryError,
    torch.OutOfMemoryError,
    ImportError,
    ConnectionError,
    sqlite3.OperationalError,
)

T = TypeVar("T")


class Reporter(Protocol):
    """Told what a worker does; each method returns at once."""

    def started(self, trial: FrozenTrial, n_answers: int) -> None:
        """A trial's evaluation begins."""

    def answered(self, n: int) -> None:
        """`n` more answers of it have been given."""

    def finished(self, trial: FrozenTrial, measurement: Measurement) -> None:
        """It was measured and delivered."""

    def failed(self, trial: FrozenTrial, reason: str) -> None:
        """It could not be measured."""


class SilentReporter:
    """Says nothing."""

    def started(self, trial: FrozenTrial, n_answers: int) -> None:
        """Do nothing."""

    def answered(self, n: int) -> None:
        """Do nothing."""

    def finished(self, trial: FrozenTrial, measurement: Measurement) -> None:
        """Do nothing."""

    def failed(self, trial: FrozenTrial, reason: str) -> None:
        """Do nothing."""


@dataclass
class Timings:
    """Where a worker's time went, in seconds."""

    suggest: float = 0.0
    merge: float = 0.0
    evaluate: float = 0.0
    n_trials: int = 0


@dataclass
class Worker:
    """Evaluates trials until the study has its budget of measured ones.

    Args:
        study: With the sampler that proposes candidates.
        inputs: What the study was made of.
        objective: Its backend loaded.
        reporter: Told of every step.
        make_claims: Says which trials it takes. Defaults to all that the budget has room for.
    """

    study: optuna.Study
    inputs: StudyInputs
    objective: MergeObjective
    reporter: Reporter = field(default_factory=SilentReporter)
    make_claims: Callable[..., Claims] = Claims
    timings: Timings = field(default_factory=Timings)

    def __post_init__(self) -> None:
        spec = self.inputs.spec
        directory = state_dir(spec)
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        space, batch = search_space(spec, self.inputs.plan), spec.sampler.batch
        self._claims = self.make_claims(
            self.study, spec.study.trials, space, batch, spec.ends, baseline_of(self.inputs)
        )
        self._local = LocalWorkers(directory / "workers")
        asked = asked_of([*self.objective.questions, *self.objective.texts])
        identity = identity_of(self.study)
        self._spool = Spool(directory / "spool", artifact_store(spec), identity, asked)
        self._room = Room(directory)
        self._lock = study_lock(spec)
        self._pulse = Pulse(self.study, spec.study.heartbeat_seconds)
        self._fingerprint = fingerprint_of(self.study)
        self._termination = Termination()
        tasks = [scored.task for scored in self.objective.questions]
        self._rotation = spec.evaluation.rotation(tasks, spec.study.seed)

    def run(self) -> None:
        """Work until the budget is complete, through any absence of the database.

        Raises:
            StudyError: If `MAX_FAILURES` trials in a row could not be measured.
            Interrupted: After SIGTERM, with the trial in hand queued again.
        """
        failures: list[tuple[FrozenTrial, str]] = []
        with self._local.register(self.name), self._termination, self._pulse:
            pause = _SHORTEST_POLL
            while (claimed := self._persist(self._claim)) is not Outcome.DONE:
                if isinstance(claimed, Outcome):
                    self._termination.sleep(pause)
                    pause = min(2.0 * pause, _LONGEST_POLL)
                    continue
                pause = _SHORTEST_POLL
                failure = self._evaluate(claimed)
                failures = [*failures, (claimed, failure)] if failure else []
                if len(failures) >= MAX_FAILURES:
                    self._give_up(failures)

    def _give_up(self, failures: list[tuple[FrozenTrial, str]]) -> NoReturn:
        """End the worker; its candidates are queued again, for the cause is not theirs."""
        self._persist(lambda: self._forgive([trial for trial, _ in failures]))
        raise StudyError(
            f"{MAX_FAILURES} trials in a row could not be measured; the last one: "
            f"{failures[-1][1]} Fix the cause and start the study again: it resumes."
        )

    def _forgive(self, failed: list[FrozenTrial]) -> None:
        with self._lock.hold(self._termination.heed) as connection:
            self._claims.forgive(connection, failed)

    def _claim(self) -> FrozenTrial | Outcome:
        start = time.perf_counter()
        self._room.check()
        self._spool.deliver_for_the_dead(
            self._claims, self._lock, self._local.is_alive, self._local.is_dead
        )
        grace = self.inputs.spec.study.grace_seconds
        # Also reads what is new: it need not be read while others wait for the lock.
        with self._claims.ledger.engine.connect() as connection:
            dead = dead_trials(self._claims, connection, self._local, grace)
            self._claims.reclaim(connection, dead)
        with self._lock.hold(self._termination.heed) as connection:
            who = {"worker": self.name, "host": socket.gethostname()}
            claimed = self._claims.claim(connection, who)
        if isinstance(claimed, FrozenTrial):
            self._pulse.follow(claimed)
            self.timings.suggest += time.perf_counter() - start
        return claimed

    def _evaluate(self, trial: FrozenTrial) -> str | None:
        """Evaluate one trial; return why it failed, if it did."""
        hand = self._rotation.hand(trial.number) if self._rotation else None
        objective = self.objective
        n = objective.count_answers(hand.blocks[0]) if hand else objective.n_answers
        try:
            self.reporter.started(trial, n)
            race = hand or self._persist(lambda: self._race(trial))
            with self._termination.at_once():
                screen = self.inputs.spec.evaluation.screen and not is_uniform(trial)
                measurement = self.objective.measure(
                    trial.params, self.reporter.answered, race, screen
                )
        except (KeyboardInterrupt, Interrupted):
            self._give_back(trial, "the worker was asked to stop")
            raise
        except EngineError as error:
            return self._try_again(trial, str(error))
        except OSError as error:
            if error.errno in NO_ROOM:
                self._no_room(trial, error)
            return self._try_again(trial, f"{type(error).__name__}: {error}")
        except OUTSIDE as error:
            return self._try_again(trial, f"{type(error).__name__}: {error}")
        except Exception as error:  # the one broad except: whatever happens, the study goes on
            return self._fail(trial, f"{type(error).__name__}: {error}")
        self._deliver(trial, measurement)
        self.reporter.finished(trial, measurement)
        return None

    def _race(self, trial: FrozenTrial) -> Race | None:
        """Return the race of a searched candidate, if the spec wants one."""
        settings = self.inputs.spec.evaluation.race
        if settings is None or is_uniform(trial):
            return None
        with self._claims.ledger.engine.connect() as connection:
            return race_against(self._claims.trials(connection), self.objective, settings)

    def _try_again(self, trial: FrozenTrial, reason: str) -> str:
        """Queue a candidate again that failed for a cause outside itself."""
        logger.warning("trial %d: %s", trial.number, reason)
        self._pulse.follow(None)
        self._persist(lambda: self._requeue(trial, reason, retry=True))
        self.reporter.failed(trial, reason)
        return reason

    def _no_room(self, trial: FrozenTrial, error: OSError) -> NoReturn:
        """End the worker before it spends more candidates on a disk that cannot be written."""
        self._give_back(trial, f"its worker's disk could not be written ({error.strerror})")
        raise self._room.error(error.strerror or str(error)) from error

    def _requeue(self, trial: FrozenTrial, reason: str, retry: bool) -> None:
        with self._claims.ledger.engine.connect() as connection:
            self._claims.requeue(connection, trial, reason, retry)

    def _deliver(self, trial: FrozenTrial, measurement: Measurement) -> None:
        attributes: dict[str, Any] = {**measurement.attributes(), "fingerprint": self._fingerprint}
        if self.inputs.spec.evaluation.race is not None and not measurement.broken:
            attributes[NUMBERS] = self.objective.numbers(measurement.answers)
        if self._rotation is not None and not measurement.broken:
            attributes["answers"] = answers_attribute(self.objective.metrics, measurement.answers)
        result = Result(
            trial.number,
            self.name,
            measurement.values,
            attributes,
            measurement.answers,
            {name: violation for name, (violation, _) in measurement.constraints.items()},
            measurement.pruned,
        )
        try:
            path = self._spool.write(result)
        except OSError as error:
            self._no_room(trial, error)
        self._persist(lambda: self._spool.deliver(self._claims, self._lock, path, result))
        self._pulse.follow(None)
        self.timings.merge += measurement.merge_seconds
        self.timings.evaluate += measurement.evaluate_seconds
        self.timings.n_trials += 1

    def _fail(self, trial: FrozenTrial, reason: str) -> str:
        logger.warning("trial %d could not be measured", trial.number, exc_info=True)
        ending = Ending(TrialState.FAIL, user_attrs={"failure": reason})
        self._persist(lambda: self._end(trial, ending))
        self._pulse.follow(None)
        self.reporter.failed(trial, reason)
        return reason

    def _end(self, trial: FrozenTrial, ending: Ending) -> None:
        ledger = self._claims.ledger
        with ledger.engine.begin() as connection:
            ledger.end(connection, trial._trial_id, ending)

    def _give_back(self, trial: FrozenTrial, reason: str) -> None:
        """Queue a trial again at once; if the database is away, its heartbeat's end will do it."""
        self._pulse.follow(None)
        try:
            with undisturbed():
                self._requeue(trial, reason, retry=False)
        except SQLAlchemyError as error:
            logger.warning("trial %d was not given back: %s", trial.number, error)

    def _persist(self, action: Callable[[], T]) -> T:
        return through_outages(action, self._termination.sleep)
