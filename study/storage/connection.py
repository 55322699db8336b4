"""Open a study's storage, and find the local files that belong to it.

Two kinds: an SQLite file for the workers of one machine, a PostgreSQL server for many.
"""

import logging
import os
import time
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.artifacts import FileSystemArtifactStore
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ...errors import StudyError
from ..spec.study_spec import StudySpec
from .locks import AdvisoryLock, FileStudyLock, StudyLock
from .outages import is_outage

logger = logging.getLogger(__name__)

# A file that holds the database's password, as container engines mount secrets.
PASSWORD_FILE = "MERGEFRONT_STORAGE_PASSWORD_FILE"
# How long a process waits for another one's short write to the same SQLite file.
_SQLITE_TIMEOUT_SECONDS = 60
_POLL_SECONDS = 1.0
_CREATE_ATTEMPTS, _CREATE_PAUSE = 10, 0.3  # seconds
# A dead network is noticed within a minute instead of after the hours of TCP's own timers.
_POSTGRESQL_CONNECTION = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
    # Optuna stores times without a zone; the server's clock is compared with them.
    "options": "-c timezone=UTC",
}


def open_storage(url: str, create: bool = True) -> BaseStorage:
    """Open a storage.

    Args:
        url: SQLAlchemy URL of an SQLite file or a PostgreSQL database.
        create: Whether missing tables are created. Of several processes that do so at once,
            some find half of them and try again.

    Raises:
        StudyError: If it cannot be reached or its driver is not installed.
    """
    full = _full_url(url)
    if create:
        _make_sqlite_folder(url)
    elif (path := sqlite_path(url)) is not None and not path.exists():
        # SQLite would make an empty file of whatever it is asked for.
        raise StudyError(
            f"There is no database at {path}; nothing was created. Check the path, which is "
            "relative to the working directory."
        )
    attempts = _CREATE_ATTEMPTS if create else 1
    while True:
        attempts -= 1
        try:
            return _open(full, create)
        except (SQLAlchemyError, StorageInternalError) as error:
            if not (attempts and _was_created_meanwhile(error)):
                raise _cannot_open(full, error) from error
        time.sleep(_CREATE_PAUSE)


def _open(url: URL, create: bool) -> BaseStorage:
    try:
        rdb = RDBStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs=_engine_options(url),
            skip_table_creation=not create,
        )
    except ImportError as error:
        raise _driver_missing(url) from error
    return get_storage(rdb)


def _was_created_meanwhile(error: Exception) -> bool:
    """Whether another process made the same table or row between our look and our attempt."""
    return isinstance(error, IntegrityError) or "already exists" in str(error)


def check_storage(url: str) -> None:
    """Connect once; make the folder of an SQLite file.

    Raises:
        StudyError: If the storage cannot be reached or its driver is not installed.
    """
    _make_sqlite_folder(url)
    full = _full_url(url)
    try:
        _engine(full).connect().close()
    except SQLAlchemyError as error:
        raise _cannot_open(full, error) from error


def _full_url(url: str) -> URL:
    """Return the URL with the driver and the secret file's password.

    Raises:
        StudyError: If it is of another database, or the file cannot be read.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise StudyError(
            f"A storage must be sqlite:///FILE or postgresql://USER@HOST/DATABASE, but got "
            f"{backend!r}. Correct `study.storage`."
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


def url_of(study: optuna.Study) -> str:
    """Return the URL of the database that a study lies in, its password included."""
    engine: Engine = study._storage._backend.engine  # type: ignore[attr-defined]
    return engine.url.render_as_string(hide_password=False)


def shown_url(url: str) -> str:
    """Return a URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


def _engine_options(url: URL) -> dict[str, Any]:
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
    options = {"connect_args": _engine_options(url)["connect_args"]}
    try:
        return sqlalchemy.create_engine(url, poolclass=NullPool, **options)
    except ImportError as error:
        raise _driver_missing(url) from error


def _driver_missing(url: URL) -> StudyError:
    return StudyError(
        f"The driver for {url.drivername!r} is not installed; run "
        "`pip install 'mergefront[postgres]'`."
    )


def _cannot_open(url: URL, error: Exception) -> StudyError:
    return StudyError(
        f"The storage {url.render_as_string(hide_password=True)} cannot be opened "
        f"({type(error).__name__}). Check `study.storage`, and that the database runs."
    )


def load_study(spec: StudySpec, storage: BaseStorage | None = None) -> optuna.Study:
    """Load the spec's study; create nothing.

    Raises:
        StudyError: If it does not exist, or its storage cannot be opened.
    """
    if storage is None:
        if not _has_tables(spec.study.storage):
            raise _missing(spec)
        storage = open_storage(spec.study.storage, create=False)
    try:
        return optuna.load_study(study_name=spec.study.name, storage=storage)
    except KeyError:
        raise _missing(spec) from None


def _has_tables(url: str) -> bool:
    if (path := sqlite_path(url)) is not None and not path.exists():
        return False
    full = _full_url(url)
    try:
        # Optuna's last step of creation.
        return sqlalchemy.inspect(_engine(full)).has_table("alembic_version")
    except SQLAlchemyError as error:
        raise _cannot_open(full, error) from error


def wait_for_study(spec: StudySpec, seconds: float, mark: str) -> optuna.Study:
    """Load a study that another process is about to create.

    Args:
        spec: Of the study.
        seconds: How long to wait for the database and the study.
        mark: The study's user attribute that is written when its creation is complete.

    Raises:
        StudyError: Why it could not be loaded at the end.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            study = load_study(spec)
            if mark in study.user_attrs:
                return study
            error = _missing(spec)
        except StudyError as caught:
            error = caught
        except (SQLAlchemyError, StorageInternalError) as caught:
            if not is_outage(caught):
                raise
            # The connection was lost on the way: the server is starting, or stopping.
            error = _cannot_open(_full_url(spec.study.storage), caught)
        if time.monotonic() > deadline:
            raise error
        logger.info("waiting for the study: %s", error)
        time.sleep(min(_POLL_SECONDS, seconds))


def _missing(spec: StudySpec) -> StudyError:
    return StudyError(
        f"There is no study {spec.study.name!r} in {shown_url(spec.study.storage)} yet. Start it "
        "with `mergefront run`."
    )


def sqlite_path(url: str) -> Path | None:
    """Return the file of an SQLite URL; None for other databases."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return None
    return Path(parsed.database)


def _make_sqlite_folder(url: str) -> None:
    if (path := sqlite_path(url)) is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(
                f"An SQLite storage needs a directory, but {path.parent} cannot be made "
                f"({error.strerror}). Correct `study.storage`."
            ) from error


def state_dir(spec: StudySpec) -> Path:
    """Return the directory of the study's local files: beside an SQLite file, else in `runs/`."""
    path = sqlite_path(spec.study.storage)
    root = Path("runs") if path is None else path.parent
    return root / f"{spec.study.name}.state"


def study_lock(spec: StudySpec) -> StudyLock:
    """Return the lock under which one worker at a time reads the history and claims a trial."""
    url = _full_url(spec.study.storage)
    if url.get_backend_name() == "postgresql":
        return AdvisoryLock(_engine(url), spec.study.name, spec.study.grace_seconds)
    directory = state_dir(spec)
    directory.mkdir(parents=True, exist_ok=True)
    return FileStudyLock(_engine(url), directory / "study.lock")


def artifact_store(spec: StudySpec) -> FileSystemArtifactStore:
    """Return the store of recipes and per-question tables."""
    directory = state_dir(spec) / "artifacts"
    directory.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(directory)
