"""Open a study's storage, and find the local files that belong to it.

Two kinds: an SQLite file for the workers of one machine, a PostgreSQL server for many.
"""

import logging
import os
import time
from pathlib import Path

import optuna
import sqlalchemy
from optuna.artifacts import FileSystemArtifactStore
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, get_storage
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from ...errors import StudyError
from ..spec.study_spec import StudySpec
from .engines import _engine as _engine
from .engines import _full_url as _full_url
from .engines import cannot_open, driver_missing, engine_options
from .history import TableStorage
from .identity import FINGERPRINT, was_cut_off
from .locks import AdvisoryLock, FileStudyLock, StudyLock
from .outages import is_outage, reason_of
from .pooling import check_sessions
from .urls import shown_url, sqlite_path

__all__ = [
    "NoStudyYetError",
    "artifact_store",
    "check_storage",
    "foreign",
    "load_study",
    "open_storage",
    "shown_url",
    "sqlite_path",
    "state_dir",
    "study_lock",
    "wait_for_storage",
    "wait_for_study",
]

logger = logging.getLogger(__name__)


class NoStudyYetError(StudyError):
    """There is no study of a name yet, or no database for it; what `run` would create."""


# What Optuna looks for first.
_FIRST_TABLE = "version_info"
_POLL_SECONDS = 1.0
_CREATE_ATTEMPTS, _CREATE_PAUSE = 10, 0.3  # seconds


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
            if not create and _FIRST_TABLE in reason_of(error):
                raise StudyError(
                    f"The database {shown_url(full)} holds no study: it has no tables of Optuna. "
                    "Check this address."
                ) from error
            if not (attempts and _was_created_meanwhile(error)):
                raise cannot_open(full, error) from error
        time.sleep(_CREATE_PAUSE)


def _open(url: URL, create: bool) -> BaseStorage:
    try:
        rdb = TableStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs=engine_options(url),
            skip_table_creation=not create,
        )
    except ImportError as error:
        raise driver_missing(url) from error
    except (RuntimeError, AssertionError) as error:  # Optuna's checks of its tables' version
        raise StudyError(
            f"The tables in {shown_url(url)} are of another version of Optuna than the installed "
            f"{optuna.__version__}. Bring them up to date with `optuna storage upgrade --storage "
            "URL` (make a copy before), or take another database."
        ) from error
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
        engine = _engine(full)
        engine.connect().close()
        check_sessions(engine)
    except SQLAlchemyError as error:
        raise cannot_open(full, error) from error


def wait_for_storage(url: str, seconds: float) -> None:
    """Wait until the storage can be connected to.

    Raises:
        StudyError: Why it could not at the end.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check_storage(url)
        except StudyError as error:
            if time.monotonic() > deadline:
                raise
            logger.info("waiting for the storage: %s", error)
        time.sleep(min(_POLL_SECONDS, seconds))


def url_of(study: optuna.Study) -> str | None:
    """Return the URL of the database that a study lies in, its password included.

    None of a study in memory, or in a journal.
    """
    backend = getattr(study._storage, "_backend", None)
    engine: Engine | None = getattr(backend, "engine", None)
    return None if engine is None else engine.url.render_as_string(hide_password=False)


def load_study(spec: StudySpec, storage: BaseStorage | None = None) -> optuna.Study:
    """Load the spec's study; create nothing.

    Raises:
        NoStudyYetError: If it does not exist, or its creation was cut off.
        StudyError: If it is not of MergeFront, or its storage cannot be opened.
    """
    if storage is None:
        if not _has_tables(spec.study.storage):
            raise _missing(spec)
        storage = open_storage(spec.study.storage, create=False)
    try:
        study = optuna.load_study(study_name=spec.study.name, storage=storage)
    except KeyError:
        raise _missing(spec) from None
    if FINGERPRINT not in study.user_attrs:
        raise _missing(spec) if was_cut_off(study, spec.directions) else foreign(spec)
    return study


def _has_tables(url: str) -> bool:
    if (path := sqlite_path(url)) is not None and not path.exists():
        return False
    full = _full_url(url)
    try:
        # Optuna's last step of creation.
        return sqlalchemy.inspect(_engine(full)).has_table("alembic_version")
    except SQLAlchemyError as error:
        raise cannot_open(full, error) from error


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
            error: StudyError = _missing(spec)
        except StudyError as caught:
            error = caught
        except (SQLAlchemyError, StorageInternalError) as caught:
            if not is_outage(caught):
                raise
            # The connection was lost on the way: the server is starting, or stopping.
            error = cannot_open(_full_url(spec.study.storage), caught)
        if time.monotonic() > deadline:
            raise error
        logger.info("waiting for the study: %s", error)
        time.sleep(min(_POLL_SECONDS, seconds))


def foreign(spec: StudySpec) -> StudyError:
    """Return the error about a study of the spec's name that another tool made."""
    return StudyError(
        f"The study {spec.study.name!r} in {shown_url(spec.study.storage)} was not made by "
        "MergeFront, and nothing of it is touched. Give this one another `study.name`, or another "
        "`study.storage`."
    )


def _missing(spec: StudySpec) -> NoStudyYetError:
    return NoStudyYetError(
        f"There is no study {spec.study.name!r} in {shown_url(spec.study.storage)} yet. Start it "
        "with `mergefront run`."
    )


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
    # Links are followed: whoever reaches one file by two paths must find the same state.
    root = Path("runs") if path is None else Path(os.path.realpath(path)).parent
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
