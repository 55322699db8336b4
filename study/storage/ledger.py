"""A study's trials in its database, each change one transaction.

Optuna's storage writes a trial parameter by parameter: 105 statements in 43 transactions for 36
weights, any of which may be the last before a worker dies. Here a trial appears with all it has,
or not at all, in a handful of statements. The tables are Optuna's own, so every other tool reads
and writes the same study.
"""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, select
from sqlalchemy.engine import Connection, Engine

from ...errors import StudyError
from .heartbeats import Heartbeats, insert, now
from .identity import CREATED, created
from .optuna_tables import (
    PARAMS,
    STUDIES,
    STUDY_ATTRS,
    SYSTEM_ATTRS,
    TRIALS,
    USER_ATTRS,
    VALUES,
)


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


class Ledger(Heartbeats):
    """Writes trials of one study.

    Every method works inside the transaction of the connection it is given.

    Args:
        study: In an SQLite or PostgreSQL storage.
        mark: Of its creation. Defaults to None: what the database has now.
    """

    def __init__(self, study: optuna.Study, mark: str | None = None) -> None:
        super().__init__(study._study_id)
        mark = mark or study.user_attrs.get(CREATED)
        self._created = (study.study_name, None if mark is None else json.dumps(mark))
        # Optuna wraps its RDBStorage in a cache.
        self.engine: Engine = study._storage._backend.engine  # type: ignore[attr-defined]

    def check_study(self, connection: Connection) -> None:
        """Check that the database still has this very study.

        Raises:
            StudyError: If it was deleted, or made anew, while this process ran.
        """
        if created(connection, self._study_id) != self._created:
            raise StudyError(
                f"The study {self._created[0]!r} was deleted or made anew while this worker ran. "
                "Nothing is written to it; results that were not delivered lie in the folder "
                "`spool` of the study's state. Start the worker again."
            )

    def describe(self, connection: Connection, attrs: Mapping[str, Any]) -> None:
        """Add attributes to the study.

        Raises:
            IntegrityError: If it has one of them: another process was faster.
        """
        rows = [
            {"study_id": self._study_id, "key": key, "value_json": json.dumps(value)}
            for key, value in attrs.items()
        ]
        connection.execute(STUDY_ATTRS.insert().values(rows))

    def add(self, connection: Connection, trial: FrozenTrial) -> FrozenTrial:
        """Insert a trial as it is; a running one gets its first heartbeat.

        Returns:
            The trial with its number and identifier.
        """
        self.check_study(connection)
        # Numbers are counted; Optuna takes the same row's lock before it counts.
        connection.execute(
            select(STUDIES.c.study_id)
            .where(STUDIES.c.study_id == self._study_id)
            .with_for_update()
        )
        row = {
            "study_id": self._study_id,
            "state": trial.state,
            "datetime_start": None if trial.state == TrialState.WAITING else now(connection),
            "datetime_complete": now(connection) if trial.state.is_finished() else None,
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

    def take(
        self,
        connection: Connection,
        trial: FrozenTrial,
        attrs: Mapping[str, Any],
        wish: FrozenTrial | None = None,
    ) -> bool:
        """Start a queued trial; False if somebody else was faster.

        Args:
            connection: In a transaction.
            trial: As it is queued.
            attrs: User attributes to add.
            wish: With the parameters that the queued trial lacks. Defaults to None: it has all.
        """
        self.check_study(connection)
        if not self._move(connection, trial._trial_id, (TrialState.WAITING,), TrialState.RUNNING):
            return False
        if wish is not None:
            self._add_params(connection, trial._trial_id, wish, trial.params)
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
        self.check_study(connection)
        if not self._move(connection, trial_id, states, ending.state):
            return False
        self._add_values(connection, trial_id, ending.values)
        self._set_attrs(connection, USER_ATTRS, trial_id, ending.user_attrs)
        self._set_attrs(connection, SYSTEM_ATTRS, trial_id, ending.system_attrs)
        return True

    def note(self, connection: Connection, trial: FrozenTrial, attrs: Mapping[str, Any]) -> None:
        """Set system attributes of a trial."""
        self._set_attrs(connection, SYSTEM_ATTRS, trial._trial_id, attrs)

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
            .values({"state": state, column: now(connection)})
        )
        return connection.execute(statement).rowcount == 1

    def _add_params(
        self,
        connection: Connection,
        trial_id: int,
        trial: FrozenTrial,
        known: Container[str] = (),
    ) -> None:
        rows = [
            {
                "trial_id": trial_id,
                "param_name": name,
                "param_value": trial.distributions[name].to_internal_repr(value),
                "distribution_json": distribution_to_json(trial.distributions[name]),
            }
            for name, value in trial.params.items()
            if name not in known
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
        statement = insert(connection, table).values(rows)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["trial_id", "key"],
                set_={"value_json": statement.excluded.value_json},
            )
        )
