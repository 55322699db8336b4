"""One worker at a time reads a study's history, proposes and publishes.

Simultaneous proposals from one history are near-duplicates, and budgets counted by several
workers at once are overrun. What is written under the lock goes through the connection that the
lock yields: a worker that lost the lock has lost that connection, and cannot write any more.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, Self

import sqlalchemy
from filelock import FileLock, Timeout
from sqlalchemy import text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from .pooling import backend, transaction_pooling

logger = logging.getLogger(__name__)

# No wait is longer: between two of them a signal that came is heard.
_SLICE_SECONDS = 2.0
# Signs of life of a holder, within one patience.
_SIGNS = 4
# What PostgreSQL calls a wait that ran out: lock_timeout, or a statement_timeout of the role.
_TIMED_OUT = ("55P03", "57014")


def _nothing() -> None:
    """Do nothing."""


class StudyLock(Protocol):
    """Mutual exclusion among the workers of one study."""

    def hold(self, heed: Callable[[], None] = _nothing) -> AbstractContextManager[Connection]:
        """Wait for the lock; yield the connection to write through.

        Args:
            heed: Called now and then while it waits; what it raises ends the waiting.
        """


class FileStudyLock:
    """For the workers of one machine: the lock of a file, freed when its process ends.

    Args:
        engine: Of the study's database.
        path: Of the file.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        self._engine, self._lock = engine, FileLock(path)

    @contextmanager
    def hold(self, heed: Callable[[], None] = _nothing) -> Iterator[Connection]:
        """See `StudyLock`."""
        while True:
            try:
                self._lock.acquire(timeout=_SLICE_SECONDS)
                break
            except Timeout:
                heed()
        try:
            with self._engine.connect() as connection:
                yield connection
        finally:
            self._lock.release()


class AdvisoryLock:
    """For many machines: a session's advisory lock, freed by PostgreSQL when its client is gone.

    A client that is stopped, not gone, would keep it for ever. Whoever waits longer than the
    patience ends the session of a holder that has given no heartbeat for as long: neither
    through the session that holds the lock, nor, while it computes, through a second one.

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
    def hold(self, heed: Callable[[], None] = _nothing) -> Iterator[Connection]:
        """See `StudyLock`; its end closes the connection, and with it frees the lock.

        Raises:
            StudyError: If a pooler gives each transaction another session.
        """
        with self._engine.connect() as connection:
            session = self._acquire(connection, heed)
            if backend(connection) != session:
                raise transaction_pooling()
            with _Keeper(self._engine, session, self._patience / _SIGNS):
                yield connection

    def _acquire(self, connection: Connection, heed: Callable[[], None]) -> int:
        """Wait for the lock; return the session that has it."""
        start = time.monotonic()
        while (session := self._try(connection)) is None:
            heed()
            if time.monotonic() - start >= self._patience:
                self._end_silent_holder(connection)
                start = time.monotonic()
        return session

    def _try(self, connection: Connection) -> int | None:
        try:
            with connection.begin():
                milliseconds = int(1000 * min(self._patience, _SLICE_SECONDS))
                connection.execute(text(f"SET LOCAL lock_timeout = {milliseconds}"))
                connection.execute(text("SET LOCAL statement_timeout = 0"))
                statement = text("SELECT pg_backend_pid(), pg_advisory_lock(:key)")
                return int(connection.execute(statement, {"key": self._key}).one()[0])
        except OperationalError as error:
            if _code(error) in _TIMED_OUT:
                return None
            raise

    def _end_silent_holder(self, connection: Connection) -> None:
        with connection.begin():
            pids = connection.execute(
                _SILENT_HOLDERS,
                {"key": self._key, "patience": self._patience, "keeper": _KEEPER},
            ).all()
        if pids:
            logger.warning("ended %d session(s) that held the study's lock in silence", len(pids))


def _code(error: OperationalError) -> str | None:
    """Return PostgreSQL's code of an error; psycopg 2 and 3 name it differently."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


_KEEPER = "mergefront keeper "


class _Keeper:
    """A thread that shows that a holder works: a long proposal sends nothing for minutes.

    It opens a session of its own at its first sign, so that short holds cost nothing.

    Args:
        engine: Without a pool.
        session: That holds the lock.
        seconds: Between two signs.
    """

    def __init__(self, engine: Engine, session: int, seconds: float) -> None:
        self._engine, self._name, self._seconds = engine, f"{_KEEPER}{session}", seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._give_signs, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()

    def _give_signs(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                with self._engine.connect() as connection:
                    self._give_signs_through(connection)
            except SQLAlchemyError as error:
                logger.info("the lock's holder gave no sign: %s", type(error).__name__)

    def _give_signs_through(self, connection: Connection) -> None:
        statement = text("SELECT set_config('application_name', :name, false)")
        while not self._stopped.is_set():
            with connection.begin():
                connection.execute(statement, {"name": self._name})
            self._stopped.wait(self._seconds)


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
      AND NOT EXISTS (
        SELECT FROM pg_stat_activity AS keeper
        WHERE keeper.application_name = :keeper || activity.pid
          AND keeper.state_change >= clock_timestamp() - make_interval(secs => :patience)
      )
    """
)
