"""One worker: claim, evaluate, write the result to disk, deliver it."""

import logging
import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import optuna

from ..errors import StudyError
from ..objectives import Measurement, MergeObjective
from .claims import Outcome, Workers, claim, reclaim, requeue
from .inputs import Inputs
from .seeding import fingerprint_of, search_space
from .spool import Result, Spool
from .storage import artifact_store, state_dir, study_lock

logger = logging.getLogger(__name__)

# Failures in a row after which something other than the candidates must be wrong.
MAX_FAILURES = 3
_POLL_SECONDS = 0.5


class Reporter(Protocol):
    """Told what a worker does; each method returns at once."""

    def started(self, trial: optuna.Trial, n_questions: int) -> None:
        """A trial's evaluation begins."""

    def answered(self, n: int) -> None:
        """`n` more questions of it have been answered."""

    def finished(self, trial: optuna.Trial, measurement: Measurement) -> None:
        """It was measured and delivered."""

    def failed(self, trial: optuna.Trial, reason: str) -> None:
        """It could not be measured."""


class SilentReporter:
    """Says nothing."""

    def started(self, trial: optuna.Trial, n_questions: int) -> None:
        """Do nothing."""

    def answered(self, n: int) -> None:
        """Do nothing."""

    def finished(self, trial: optuna.Trial, measurement: Measurement) -> None:
        """Do nothing."""

    def failed(self, trial: optuna.Trial, reason: str) -> None:
        """Do nothing."""


class Interrupted(BaseException):
    """The process was asked to stop (SIGTERM); like KeyboardInterrupt, not an error."""


@dataclass
class Timings:
    """Where a worker's time went, in seconds."""

    suggest: float = 0.0
    merge: float = 0.0
    evaluate: float = 0.0
    n_trials: int = 0


@dataclass
class Worker:
    """Evaluates trials until the study has its budget of COMPLETE ones.

    Args:
        study: With the sampler that proposes candidates.
        inputs: What the study was made of.
        objective: Its backend loaded.
        reporter: Told of every step.
    """

    study: optuna.Study
    inputs: Inputs
    objective: MergeObjective
    reporter: Reporter = field(default_factory=SilentReporter)
    timings: Timings = field(default_factory=Timings)

    def __post_init__(self) -> None:
        spec = self.inputs.spec
        directory = state_dir(spec)
        self.name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._workers = Workers(directory / "workers")
        self._spool = Spool(directory / "spool", artifact_store(spec))
        self._lock = study_lock(spec)
        self._space = search_space(spec, self.inputs.plan)
        self._fingerprint = fingerprint_of(self.study)

    def run(self) -> None:
        """Work until the budget is complete.

        Raises:
            StudyError: If `MAX_FAILURES` trials in a row could not be measured.
        """
        failures: list[str] = []
        with self._workers.register(self.name), _terminable():
            while (claimed := self._claim()) is not Outcome.DONE:
                if isinstance(claimed, Outcome):
                    time.sleep(_POLL_SECONDS)
                    continue
                failure = self._evaluate(claimed)
                failures = [*failures, failure] if failure else []
                if len(failures) >= MAX_FAILURES:
                    raise StudyError(
                        f"{MAX_FAILURES} trials in a row could not be measured; the last one: "
                        f"{failure} Mend the cause and start the study again: it resumes."
                    )

    def _claim(self) -> optuna.Trial | Outcome:
        start = time.perf_counter()
        with self._lock:
            self._deliver_for_the_dead()
            reclaim(self.study, self._workers)
            who = {"worker": self.name, "host": socket.gethostname()}
            claimed = claim(self.study, self.inputs.spec.study.trials, dict(self._space), who)
        if isinstance(claimed, optuna.Trial):
            self.timings.suggest += time.perf_counter() - start
        return claimed

    def _deliver_for_the_dead(self) -> None:
        for path, result in self._spool.pending():
            if not self._workers.is_alive(result.worker):
                self._spool.deliver(self.study, path, result)

    def _evaluate(self, trial: optuna.Trial) -> str | None:
        """Evaluate one trial; return why it failed, if it did."""
        self.reporter.started(trial, len(self.objective.questions))
        try:
            measurement = self.objective.measure(trial.params, self.reporter.answered)
        except (KeyboardInterrupt, Interrupted):
            self._give_back(trial, "the worker was asked to stop")
            raise
        except Exception as error:  # the one broad except: whatever happens, the study goes on
            return self._fail(trial, f"{type(error).__name__}: {error}")
        self._deliver(trial, measurement)
        self.reporter.finished(trial, measurement)
        return None

    def _deliver(self, trial: optuna.Trial, measurement: Measurement) -> None:
        attributes: dict[str, Any] = {**measurement.attributes(), "fingerprint": self._fingerprint}
        result = Result(
            trial.number, self.name, measurement.values, attributes, measurement.answers
        )
        path = self._spool.write(result)
        self._spool.deliver(self.study, path, result)
        self.timings.merge += measurement.merge_seconds
        self.timings.evaluate += measurement.evaluate_seconds
        self.timings.n_trials += 1

    def _fail(self, trial: optuna.Trial, reason: str) -> str:
        logger.warning("trial %d could not be measured", trial.number, exc_info=True)
        trial.set_user_attr("failure", reason)
        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        self.reporter.failed(trial, reason)
        return reason

    def _give_back(self, trial: optuna.Trial, reason: str) -> None:
        with self._lock:
            frozen = self.study.get_trials(deepcopy=False)[trial.number]
            requeue(self.study, frozen, reason, retry=False)


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception inside the block, where signals can be handled at all."""

    def stop(number: int, frame: object) -> None:
        raise Interrupted

    try:
        previous = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
