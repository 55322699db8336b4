"""Connections to the two kinds of databases: their URLs, settings and errors."""

import os
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy.engine import URL, Engine
from sqlalchemy.pool import NullPool

from ...errors import StudyError
from .outages import reason_of
from .urls import parse_url, shown_url, without_secrets

# A file that holds the database's password, as container engines mount secrets.
PASSWORD_FILE = "MERGEFRONT_STORAGE_PASSWORD_FILE"
# How long a process waits for another one's short write to the same SQLite file.
_SQLITE_TIMEOUT_SECONDS = 60
# A dead network is noticed within half a minute instead of after the hours of TCP's own timers:
# no signal is heard meanwhile, and whoever stops a container gives it a minute.
_POSTGRESQL_CONNECTION = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


def _full_url(url: str) -> URL:
    """Return the URL with the driver and the secret file's password.

    Raises:
        StudyError: If it is of another database, or the file cannot be read.
    """
    parsed = parse_url(url)
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise StudyError(
            f"A storage must be sqlite:///FILE or postgresql://USER@HOST/DATABASE, but got "
            f"{backend!r}. Correct its address."
        )
    if backend == "postgresql" and parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg2")
    secret = os.environ.get(PASSWORD_FILE)
    if backend == "postgresql" and secret and not parsed.password:
        try:
            password = Path(secret).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise StudyError(
                f"{PASSWORD_FILE} must name a readable file, but {secret}: {error.strerror}."
            ) from error
        parsed = parsed.set(password=password)
    return parsed


def engine_options(url: URL) -> dict[str, Any]:
    """Return what Optuna's own engine is made with."""
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": _SQLITE_TIMEOUT_SECONDS}}
    # One idle connection a worker; three at most, with the heartbeat's and the lock's.
    return {
        "pool_pre_ping": True,
        "pool_size": 1,
        "max_overflow": 2,
        "connect_args": _POSTGRESQL_CONNECTION,
    }


def _engine(url: URL) -> Engine:
    """Return an engine that opens a connection a use, and closes it."""
    options = {"connect_args": engine_options(url)["connect_args"]}
    try:
        return sqlalchemy.create_engine(url, poolclass=NullPool, **options)
    except ImportError as error:
        raise driver_missing(url) from error


def driver_missing(url: URL) -> StudyError:
    """Return the error about a driver that is not installed."""
    driver = url.get_driver_name()
    advice = "run `pip install 'mergefront[postgres]'`"
    if driver != "psycopg2":
        advice = f"run `pip install {driver}`, or write postgresql:// for psycopg2"
    return StudyError(f"The driver for {url.drivername!r} is not installed; {advice}.")


def cannot_open(url: URL, error: Exception) -> StudyError:
    """Return the error about a database that refuses, with its own reason."""
    reason = without_secrets(reason_of(error), url).rstrip(".")
    return StudyError(
        f"The storage {shown_url(url)} cannot be opened: {reason}. Check this address, "
        "and that the database runs and lets this user in."
    )
