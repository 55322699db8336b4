"""Open a study's storage, and find the local files that belong to it."""

from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.artifacts import FileSystemArtifactStore
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from ..errors import StudyError
from .spec import StudySpec

# How long a process waits for another one's short write to the same SQLite file.
_SQLITE_TIMEOUT_SECONDS = 60


def open_storage(url: str) -> BaseStorage:
    """Open a storage, with the tables created if it is empty.

    Raises:
        StudyError: If it cannot be reached or its driver is not installed.
    """
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options = {"connect_args": {"timeout": _SQLITE_TIMEOUT_SECONDS}}
        _make_sqlite_folder(url)
    try:
        return get_storage(RDBStorage(url, engine_kwargs=options))
    except ImportError as error:
        raise StudyError(
            f"The driver for {make_url(url).drivername!r} is not installed; run "
            "`pip install 'mergefront[postgres]'`."
        ) from error
    except SQLAlchemyError as error:
        shown = make_url(url).render_as_string(hide_password=True)
        raise StudyError(
            f"The storage {shown} cannot be opened ({type(error).__name__}). Check the URL under "
            "`study.storage` and that the database runs."
        ) from error


def load_study(spec: StudySpec, storage: BaseStorage | None = None) -> optuna.Study:
    """Load the spec's study.

    Raises:
        StudyError: If it does not exist.
    """
    if storage is None:
        if (path := sqlite_path(spec.study.storage)) is not None and not path.exists():
            raise _missing(spec)
        # Opening creates missing tables, and two processes that do so at once fail.
        with study_lock(spec):
            storage = open_storage(spec.study.storage)
    try:
        return optuna.load_study(study_name=spec.study.name, storage=storage)
    except KeyError:
        raise _missing(spec) from None


def _missing(spec: StudySpec) -> StudyError:
    shown = make_url(spec.study.storage).render_as_string(hide_password=True)
    return StudyError(
        f"There is no study {spec.study.name!r} in {shown} yet. Start it with `mergefront run`."
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


def study_lock(spec: StudySpec) -> FileLock:
    """Return the lock under which workers of this machine read the history and claim trials."""
    directory = state_dir(spec)
    directory.mkdir(parents=True, exist_ok=True)
    return FileLock(directory / "study.lock")


def artifact_store(spec: StudySpec) -> FileSystemArtifactStore:
    """Return the store of the per-question tables."""
    directory = state_dir(spec) / "artifacts"
    directory.mkdir(parents=True, exist_ok=True)
    return FileSystemArtifactStore(directory)
