"""One worker at a time reads a study's history, proposes and publishes.

Simultaneous proposals from one history are near-duplicates, and budgets counted by several
workers at once are overrun. What is written under the lock goes through the connection that the
lock yields: a worker that lost the lock has lost that connection, and cannot write any more.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import sqlalchemy
from filelock import FileLock
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError

logger = logging.getLogger(__name__)


class StudyLock(Protocol):
    """Mutual exclusion among the workers of one study."""

    def hold(self) -> AbstractContextManager[Connection]:
        """Wait for the lock; yield the connection to write through."""


class FileStudyLock:
    """For the workers of one machine: the lock of a file, freed when its process ends.

    Args:
        engine: Of the study's database.
        path: Of the file.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine, self._lock = engine, FileLock(path)

    @contextmanager
    def hold(self) -> Iterator[Connection]:
        """See `StudyLock`."""
        with self._lock, self._engine.connect() as connection:
            yield connection


class AdvisoryLock:
    """For many machines: a session's advisory lock, freed by PostgreSQL when its client is gone.

    A client that is stopped, not gone, would keep it for ever. Whoever waits longer than the
    patience ends the session of a holder that has sent nothing for as long.

    Args:
        engine: Of the study's database, without a pool.
        name: Of the study.
        patience: Seconds.
    """

    def __init__(self, engine: Engine, name: str, patience: float) -> None:
        digest = hashlib.sha256(f"mergefront:{name}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        self._engine, self._patience = engine, patience

    @contextmanager
    def hold(self) -> Iterator[Connection]:
        """See `StudyLock`; its end closes the connection, and with it frees the lock."""
        with self._engine.connect() as connection:
            while not self._acquire(connection):
                self._end_silent_holder(connection)
            yield connection

    def _acquire(self, connection: Connection) -> bool:
        try:
            with connection.begin():
                milliseconds = int(1000 * self._patience)
                connection.execute(text(f"SET LOCAL lock_timeout = {milliseconds}"))
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": self._key})
        except OperationalError as error:
            # 55P03 is lock_not_available: the timeout, not an outage.
            if getattr(error.orig, "pgcode", None) == "55P03":
                return False
            raise
        return True

    def _end_silent_holder(self, connection: Connection) -> None:
        with connection.begin():
            pids = connection.execute(
                _SILENT_HOLDERS,
                {"key": self._key, "patience": self._patience},
            ).all()
        if pids:
            logger.warning("ended %d session(s) that held the study's lock in silence", len(pids))


# A 64-bit key lies in two columns of pg_locks, and objsubid 1 marks it.
_SILENT_HOLDERS = sqlalchemy.text(
    """
    SELECT pg_terminate_backend(activity.pid)
    FROM pg_locks AS locks JOIN pg_stat_activity AS activity USING (pid)
    WHERE locks.locktype = 'advisory' AND locks.granted AND locks.objsubid = 1
      AND (locks.classid::bigint << 32 | locks.objid::bigint) = :key
      AND locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND activity.state LIKE 'idle%'
      AND activity.state_change < clock_timestamp() - make_interval(secs => :patience)
    """
)
