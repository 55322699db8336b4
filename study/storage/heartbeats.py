"""Signs of life in the database, and the clock that they are compared by."""

import datetime
from typing import Any

import sqlalchemy
from optuna.trial import TrialState
from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from .optuna_tables import HEARTBEATS, TRIALS


class Heartbeats:
    """Of the running trials of one study; all times by the database's clock.

    Args:
        study_id: Identifier in the database.
    """

    def __init__(self, study_id: int) -> None:
        self._study_id = study_id

    def beat(self, connection: Connection, trial_id: int) -> None:
        """Write a heartbeat, by the database's clock."""
        moment = now(connection)
        row = {"trial_id": trial_id, "heartbeat": moment}
        statement = insert(connection, HEARTBEATS).values(row)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["trial_id"], set_={"heartbeat": moment}
            )
        )

    def in_hand(self, connection: Connection) -> dict[int, tuple[float, float]]:
        """Return how long every running trial has run, and been silent, by identifier.

        Both in seconds of the database's clock. A trial that never gave a heartbeat has been
        silent since its start.
        """
        rows = connection.execute(
            select(TRIALS.c.trial_id, TRIALS.c.datetime_start, HEARTBEATS.c.heartbeat)
            .join(HEARTBEATS, HEARTBEATS.c.trial_id == TRIALS.c.trial_id, isouter=True)
            .where(TRIALS.c.study_id == self._study_id, TRIALS.c.state == TrialState.RUNNING)
        ).all()
        moment = now(connection)
        if not isinstance(moment, datetime.datetime):
            moment = connection.execute(select(moment)).scalar_one()
        return {
            trial_id: (
                (moment - (start or beat or moment)).total_seconds(),
                (moment - (beat or start or datetime.datetime.min)).total_seconds(),
            )
            for trial_id, start, beat in rows
        }

    def silences(self, connection: Connection) -> dict[int, float]:
        """Return the seconds since the last heartbeat of every running trial."""
        return {key: silence for key, (_, silence) in self.in_hand(connection).items()}

    def uptime(self, connection: Connection) -> float:
        """Return for how many seconds the database has been answering; SQLite always has been."""
        if connection.dialect.name != "postgresql":
            return float("inf")
        started = sqlalchemy.text(
            "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())"
        )
        return float(connection.execute(started).scalar_one())


def insert(connection: Connection, table: sqlalchemy.Table) -> Any:
    """Return the dialect's INSERT, which knows ON CONFLICT."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def now(connection: Connection) -> Any:
    """Return the time as Optuna stores it, UTC without a zone, by the clock that all share.

    PostgreSQL's own; the workers of an SQLite file have one machine's.
    """
    if connection.dialect.name == "postgresql":
        return func.timezone("UTC", func.clock_timestamp(), type_=sqlalchemy.DateTime())
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
