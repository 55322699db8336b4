"""Which workers are alive.

On one machine every worker holds the lock of a file, which the operating system frees with the
process: death is known at once, and a worker that is merely slow is never taken for dead. Other
machines' workers are judged by the age of their heartbeat in the database.
"""

import logging
import threading
from pathlib import Path
from typing import Self

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from ..storage.ledger import Ledger
from .claims import Claims

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


class LocalWorkers:
    """The workers of this machine.

    Args:
        directory: Holds their lock files.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def register(self, name: str) -> FileLock:
        """Return the held lock of a new worker."""
        lock = FileLock(self._directory / f"{name}.lock")
        lock.acquire(timeout=0)
        return lock

    def is_alive(self, name: str) -> bool:
        """Whether the worker of this name runs on this machine."""
        path = self._directory / f"{name}.lock"
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True

    def is_dead(self, name: str) -> bool:
        """Whether the worker of this name ran on this machine and runs no more."""
        return (self._directory / f"{name}.lock").exists() and not self.is_alive(name)


def dead_trials(
    claims: Claims, connection: Connection, local: LocalWorkers, grace_seconds: float
) -> list[FrozenTrial]:
    """Return the running trials whose workers are gone.

    After the database itself was away nobody is taken for dead until everybody had the grace to
    give a sign again.

    Args:
        claims: On the study.
        connection: Of its database.
        local: The workers of this machine.
        grace_seconds: Silence that means death on another machine.
    """
    running = [t for t in claims.trials(connection) if t.state == TrialState.RUNNING]
    if connection.dialect.name == "sqlite":  # the file's machine is the only one
        return [t for t in running if not local.is_alive(t.user_attrs.get("worker", ""))]
    with connection.begin():
        silences = claims.ledger.silences(connection)
        uptime = claims.ledger.uptime(connection)
    return [
        trial
        for trial in running
        if min(silences.get(trial._trial_id, 0.0), uptime) > grace_seconds
        or local.is_dead(trial.user_attrs.get("worker", ""))
    ]


class Pulse:
    """A thread that gives signs of life for the trial in hand, whatever the database does.

    Args:
        study: In a storage with an engine that other threads may use.
        seconds: Between two signs.
    """

    def __init__(self, study: optuna.Study, seconds: float) -> None:
        self._ledger, self._seconds = Ledger(study), seconds
        self._trial_id: int | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_stopped, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()

    def follow(self, trial: FrozenTrial | None) -> None:
        """Beat for this trial from now on, or for none."""
        self._trial_id = None if trial is None else trial._trial_id

    def _beat_until_stopped(self) -> None:
        pause = self._seconds
        while not self._stopped.wait(pause):
            pause = self._seconds if self._beat() else min(_RETRY_SECONDS, self._seconds)

    def _beat(self) -> bool:
        trial_id = self._trial_id
        if trial_id is None:
            return True
        try:
            with self._ledger.engine.begin() as connection:
                self._ledger.beat(connection, trial_id)
        except SQLAlchemyError as error:
            logger.info("no heartbeat could be written: %s", type(error).__name__)
            return False
        return True
