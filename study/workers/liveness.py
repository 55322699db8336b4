"""Which workers are alive.

On one machine every worker holds the lock of a file, which the operating system frees with the
process: death is known at once, and a worker that is merely slow is never taken for dead. Other
machines' workers are judged by the age of their heartbeat in the database, by its clock: what
time the machines believe it is plays no part.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

from ...errors import StudyError
from ..storage.ledger import Ledger
from .claims import Claims

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
# The same in all containers of a machine, another one on every machine and after every boot.
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LocalWorkers:
    """The workers of this machine.

    Their folder may be shared with other machines, on a file system whose locks end at each
    machine: a lock that seems free then says nothing. So a worker notes where it runs, and its
    lock counts for the workers of the same place alone.

    Args:
        directory: Holds their lock files.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def register(self, name: str) -> FileLock:
        """Return the held lock of a new worker.

        Raises:
            StudyError: If the folder's file system has no locks that hold between processes.
        """
        self._place_of(name).write_text(json.dumps(self._here()), encoding="utf-8")
        lock = FileLock(self._lock_of(name))
        try:
            lock.acquire(timeout=0)
        except (OSError, NotImplementedError) as error:
            raise _no_locks(self._directory, str(error)) from error
        if not excludes_others(self._lock_of(name)):
            lock.release()
            raise _no_locks(self._directory, "two processes got the same one")
        return lock

    def is_alive(self, name: str) -> bool:
        """Whether the worker of this name runs on this machine."""
        path = self._lock_of(name)
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True

    def is_dead(self, name: str) -> bool:
        """Whether the worker of this name ran on this machine and runs no more."""
        return self._lock_of(name).exists() and self.is_here(name) and not self.is_alive(name)

    def is_here(self, name: str) -> bool:
        """Whether the lock of a worker tells us anything: it is, or was, of this machine."""
        try:
            there = json.loads(self._place_of(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return True
        here = self._here()
        return bool(there == here)

    def _lock_of(self, name: str) -> Path:
        return self._directory / f"{name}.lock"

    def _place_of(self, name: str) -> Path:
        return self._directory / f"{name}.place"

    def _here(self) -> dict[str, str | int]:
        """Return the running kernel and its mount of the folder: within both, locks hold."""
        boot = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
        device = os.stat(self._directory).st_dev
        return {"kernel": boot or socket.gethostname(), "device": device}


def excludes_others(lock: Path) -> bool:
    """Whether another process fails to take a file's lock that this one holds."""
    return subprocess.run([sys.executable, "-c", _PROBE, str(lock)]).returncode == _REFUSED


_REFUSED = 3
_PROBE = f"""
import sys
from filelock import FileLock, Timeout
try:
    FileLock(sys.argv[1]).acquire(timeout=0)
except Timeout:
    sys.exit({_REFUSED})
"""


def _no_locks(directory: Path, reason: str) -> StudyError:
    return StudyError(
        f"Locks of files do not hold in {directory} ({reason}); workers would take each other's "
        "candidates. Network and FUSE file systems may need an option for it (NFS: no `nolock`); "
        "or start in a folder on a disk of this machine."
    )


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
    with connection.begin():
        silences = claims.ledger.silences(connection)
        uptime = claims.ledger.uptime(connection)
    one_machine = connection.dialect.name == "sqlite"  # the file's

    def is_dead(trial: FrozenTrial) -> bool:
        worker = trial.user_attrs.get("worker", "")
        if one_machine and local.is_here(worker):
            return not local.is_alive(worker)
        silence = min(silences.get(trial._trial_id, 0.0), uptime)
        return silence > grace_seconds or local.is_dead(worker)

    return [trial for trial in running if is_dead(trial)]


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
