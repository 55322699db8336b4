"""Which study it is: a name and a number are not enough.

Two databases have studies of the same name; a study is deleted and made anew; a file is copied.
What lies on disk for a study (results that wait for delivery) names it by all that is here.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy import select, text
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from .optuna_tables import STUDIES, STUDY_ATTRS

FINGERPRINT = "mergefront:fingerprint"
# Study's user attribute: a random text, written once, in the transaction that creates the study.
CREATED = "mergefront:created"

Identity = dict[str, Any]


def was_cut_off(study: optuna.Study, directions: Sequence[str]) -> bool:
    """Whether a study is what a creation leaves that is killed: nobody worked on it."""
    return (
        [direction.name.lower() for direction in study.directions] == list(directions)
        and all(key.startswith("mergefront:") for key in study.user_attrs)
        and all(
            trial.state in (TrialState.WAITING, TrialState.FAIL)
            and {"phase", "label"} <= trial.user_attrs.keys()
            for trial in study.get_trials(deepcopy=False)
        )
    )


def identity_of(study: optuna.Study) -> Identity:
    """Return what tells this study from every other one.

    Returns:
        Database, identifier and name in it, moment of creation, and fingerprint.
    """
    attributes = study.user_attrs
    return {
        "storage": database_of(study._storage),
        "study_id": study._study_id,
        "name": study.study_name,
        "created": attributes.get(CREATED),
        "fingerprint": attributes.get(FINGERPRINT),
    }


def database_of(storage: BaseStorage) -> str:
    """Return a name of a storage's database that is the same however it is reached."""
    engine = storage._backend.engine  # type: ignore[attr-defined]
    if engine.dialect.name == "sqlite":
        return f"sqlite:{os.path.realpath(str(engine.url.database))}"
    with engine.connect() as connection:
        database = connection.execute(text(_DATABASE)).scalar_one()
    return f"postgresql:{_server(engine)}/{database}"


_DATABASE = "SELECT oid FROM pg_database WHERE datname = current_database()"


def _server(engine: Engine) -> str:
    try:
        with engine.connect() as connection:
            statement = "SELECT system_identifier FROM pg_control_system()"
            return str(connection.execute(text(statement)).scalar_one())
    except SQLAlchemyError:  # a role that may not ask
        return f"{engine.url.host}:{engine.url.port or 5432}"


def is_of(study: Identity, other: Identity) -> bool:
    """Whether two identities are of one study; a database's file may have been moved."""
    if {**study, "storage": ""} != {**other, "storage": ""}:
        return False
    return study.get("storage") == other.get("storage") or not lives_elsewhere(study, other)


def lives_elsewhere(study: Identity, other: Identity) -> bool:
    """Whether another identity is of a database that is not this study's, and may exist."""
    storage = str(other.get("storage", ""))
    return bool(storage) and storage != study.get("storage") and _is_there(storage)


def _is_there(storage: str) -> bool:
    kind, _, place = storage.partition(":")
    return Path(place).exists() if kind == "sqlite" else True


def created(connection: Connection, study_id: int) -> tuple[Any, ...] | None:
    """Return the name and the creation's mark (JSON) of the study with this identifier now."""
    mark = (STUDY_ATTRS.c.study_id == STUDIES.c.study_id) & (STUDY_ATTRS.c.key == CREATED)
    statement = (
        select(STUDIES.c.study_name, STUDY_ATTRS.c.value_json)
        .join(STUDY_ATTRS, mark, isouter=True)
        .where(STUDIES.c.study_id == study_id)
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else tuple(row)
