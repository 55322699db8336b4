"""A study's trials in its database, each change one transaction.

Optuna's storage writes a trial parameter by parameter: 105 statements in 43 transactions for 36
weights, any of which may be the last before a worker dies. Here a trial appears with all it has,
or not at all, in a handful of statements. The tables are Optuna's own, so every other tool reads
and writes the same study.
"""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine

from .optuna_tables import HEARTBEATS, PARAMS, STUDIES, SYSTEM_ATTRS, TRIALS, USER_ATTRS, VALUES


@dataclass(frozen=True)
class Ending:
    """How a trial ends.

    Args:
        state: COMPLETE, PRUNED or FAIL.
        values: One an objective, but for FAIL.
        user_attrs: Added to the trial's.
        system_attrs: Added to the trial's.
    """

    state: TrialState
    values: Sequence[float] = ()
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)


class Ledger:
    """Writes trials of one study.

    Every method works inside the transaction of the connection it is given.

    Args:
        study: In an SQLite or PostgreSQL storage.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study_id = study._study_id
        # Optuna wraps its RDBStorage in a cache.
        self.engine: Engine = study._storage._backend.engine  # type: ignore[attr-defined]

    def add(self, connection: Connection, trial: FrozenTrial) -> FrozenTrial:
        """Insert a trial as it is; a running one gets its first heartbeat.

        Returns:
            The trial with its number and identifier.
        """
        # Numbers are counted; Optuna takes the same row's lock before it counts.
        connection.execute(
            select(STUDIES.c.study_id)
            .where(STUDIES.c.study_id == self._study_id)
            .with_for_update()
        )
        row = {
            "study_id": self._study_id,
            "state": trial.state,
            "datetime_start": None if trial.state == TrialState.WAITING else _now(),
            "datetime_complete": _now() if trial.state.is_finished() else None,
        }
        statement = TRIALS.insert().values(row).returning(TRIALS.c.trial_id)
        trial_id = int(connection.execute(statement).scalar_one())
        number = self._number(connection, trial_id)
        self._add_params(connection, trial_id, trial)
        self._add_values(connection, trial_id, trial.values or ())
        self._set_attrs(connection, USER_ATTRS, trial_id, trial.user_attrs)
        self._set_attrs(connection, SYSTEM_ATTRS, trial_id, trial.system_attrs)
        if trial.state == TrialState.RUNNING:
            self.beat(connection, trial_id)
        trial.number, trial._trial_id = number, trial_id
        return trial

    def take(self, connection: Connection, trial: FrozenTrial, attrs: Mapping[str, Any]) -> bool:
        """Start a queued trial; False if somebody else was faster."""
        if not self._move(connection, trial._trial_id, (TrialState.WAITING,), TrialState.RUNNING):
            return False
        self._set_attrs(connection, USER_ATTRS, trial._trial_id, attrs)
        self.beat(connection, trial._trial_id)
        return True

    def end(
        self,
        connection: Connection,
        trial_id: int,
        ending: Ending,
        states: Sequence[TrialState] = (TrialState.RUNNING,),
    ) -> bool:
        """End a trial that is in one of the states; False, and no change, if it is in another."""
        if not self._move(connection, trial_id, states, ending.state):
            return False
        self._add_values(connection, trial_id, ending.values)
        self._set_attrs(connection, USER_ATTRS, trial_id, ending.user_attrs)
        self._set_attrs(connection, SYSTEM_ATTRS, trial_id, ending.system_attrs)
        return True

    def beat(self, connection: Connection, trial_id: int) -> None:
        """Write a sign of life, by the database's clock."""
        row = {"trial_id": trial_id, "heartbeat": func.current_timestamp()}
        statement = _insert(connection, HEARTBEATS).values(row)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["trial_id"], set_={"heartbeat": func.current_timestamp()}
            )
        )

    def silences(self, connection: Connection) -> dict[int, float]:
        """Return the seconds since the last sign of life of every running trial, by identifier.

        A trial that never gave any counts from its start.
        """
        rows = connection.execute(
            select(
                TRIALS.c.trial_id,
                TRIALS.c.datetime_start,
                HEARTBEATS.c.heartbeat,
                func.current_timestamp(type_=sqlalchemy.DateTime()),
            )
            .join(HEARTBEATS, HEARTBEATS.c.trial_id == TRIALS.c.trial_id, isouter=True)
            .where(TRIALS.c.study_id == self._study_id, TRIALS.c.state == TrialState.RUNNING)
        ).all()
        return {
            trial_id: (_naive(now) - (beat or start or datetime.datetime.min)).total_seconds()
            for trial_id, start, beat, now in rows
        }

    def uptime(self, connection: Connection) -> float:
        """Return for how many seconds the database has been answering; SQLite always has been."""
        if connection.dialect.name != "postgresql":
            return float("inf")
        started = sqlalchemy.text(
            "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())"
        )
        return float(connection.execute(started).scalar_one())

    def _number(self, connection: Connection, trial_id: int) -> int:
        earlier = (
            select(func.count())
            .where(TRIALS.c.study_id == self._study_id, TRIALS.c.trial_id < trial_id)
            .scalar_subquery()
        )
        statement = TRIALS.update().where(TRIALS.c.trial_id == trial_id).values(number=earlier)
        return int(connection.execute(statement.returning(TRIALS.c.number)).scalar_one())

    def _move(
        self,
        connection: Connection,
        trial_id: int,
        states: Sequence[TrialState],
        state: TrialState,
    ) -> bool:
        column = "datetime_start" if state == TrialState.RUNNING else "datetime_complete"
        statement = (
            TRIALS.update()
            .where(TRIALS.c.trial_id == trial_id, TRIALS.c.state.in_(states))
            .values({"state": state, column: _now()})
        )
        return connection.execute(statement).rowcount == 1

    def _add_params(self, connection: Connection, trial_id: int, trial: FrozenTrial) -> None:
        rows = [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": trial.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(trial.distributions[name]),
            }
            for name, value in trial.params.items()
        ]
        if rows:
            connection.execute(PARAMS.insert().values(rows))

    def _add_values(self, connection: Connection, trial_id: int, values: Sequence[float]) -> None:
        rows = []
        for objective, value in enumerate(values):
            stored, kind = models.TrialValueModel.value_to_stored_repr(value)
            rows.append(
                {
                    "trial_id": trial_id,
                    "objective": objective,
                    "value": stored,
                    "value_type": kind,
                }
            )
        if rows:
            connection.execute(VALUES.insert().values(rows))

    def _set_attrs(
        self,
        connection: Connection,
        table: sqlalchemy.Table,
        trial_id: int,
        attrs: Mapping[str, Any],
    ) -> None:
        if not attrs:
            return
        rows = [
            {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
            for key, value in attrs.items()
        ]
        statement = _insert(connection, table).values(rows)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["trial_id", "key"],
                set_={"value_json": statement.excluded.value_json},
            )
        )


def _insert(connection: Connection, table: sqlalchemy.Table) -> Any:
    """Return the dialect's INSERT, which knows ON CONFLICT."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def _now() -> datetime.datetime:
    """Return the time as Optuna stores it: UTC, without a zone."""
    return datetime.datetime.now(datetime.UTC).replace(tzinfo=None)


def _naive(moment: datetime.datetime) -> datetime.datetime:
    return moment.replace(tzinfo=None)
