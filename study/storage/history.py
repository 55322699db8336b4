"""All trials of a study, kept in memory and brought up to date in six statements.

Optuna's cache builds every unfinished trial anew at each look, through its object mapper: with 64
workers a third of a second, during which nobody else can claim. Here a look costs some
milliseconds.
"""

import datetime
import functools
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial
from sqlalchemy import or_, select
from sqlalchemy.engine import Connection, Row

from .optuna_tables import PARAMS, STEPS, SYSTEM_ATTRS, TRIALS, USER_ATTRS, VALUES

# Numbers in one IN (...).
_CHUNK = 500


class History:
    """The trials of one study; a finished one is read once.

    Args:
        study_id: Identifier in the database.
    """

    def __init__(self, study_id: int) -> None:
        self._study_id = study_id
        self._trials: dict[int, FrozenTrial] = {}
        self._unfinished: set[int] = set()
        # Identifiers appear in the order of commits: whoever inserts holds the study's row.
        self._newest = -1

    def read(self, connection: Connection) -> list[FrozenTrial]:
        """Return all trials in the order of their numbers, as Optuna would.

        Args:
            connection: In a transaction. The trials are shared: not to be changed.
        """
        rows = self._changed(connection)
        details = _details(connection, [row.trial_id for row in rows])
        for row in rows:
            self._trials[row.trial_id] = _trial(row, details)
            self._newest = max(self._newest, row.trial_id)
            keep = self._unfinished.discard if row.state.is_finished() else self._unfinished.add
            keep(row.trial_id)
        return sorted(self._trials.values(), key=lambda trial: trial.number)

    def _changed(self, connection: Connection) -> Sequence[Row[Any]]:
        new = TRIALS.c.trial_id > self._newest
        known = TRIALS.c.trial_id.in_(self._unfinished)
        statement = select(TRIALS).where(
            TRIALS.c.study_id == self._study_id, or_(new, known) if self._unfinished else new
        )
        return connection.execute(statement).all()


# Rows of the tables that describe trials, by table and identifier.
_Details = dict[sqlalchemy.Table, dict[int, list[Row[Any]]]]


def _details(connection: Connection, trial_ids: Sequence[int]) -> _Details:
    details: _Details = {}
    for table in (PARAMS, VALUES, STEPS, USER_ATTRS, SYSTEM_ATTRS):
        rows = details[table] = defaultdict(list)
        for first in range(0, len(trial_ids), _CHUNK):
            chunk = trial_ids[first : first + _CHUNK]
            key = next(iter(table.primary_key))
            statement = select(table).where(table.c.trial_id.in_(chunk)).order_by(key)
            for row in connection.execute(statement):
                rows[row.trial_id].append(row)
    return details


def _trial(row: Row[Any], details: _Details) -> FrozenTrial:
    params = details[PARAMS][row.trial_id]
    values = sorted(details[VALUES][row.trial_id], key=lambda value: value.objective)
    stored = models.TrialValueModel.stored_repr_to_value
    step = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
    return FrozenTrial(
        number=row.number,
        trial_id=row.trial_id,
        state=row.state,
        value=None,
        values=[stored(v.value, v.value_type) for v in values] or None,
        datetime_start=_local(row.datetime_start),
        datetime_complete=_local(row.datetime_complete),
        params={
            p.param_name: _distribution(p.distribution_json).to_external_repr(p.param_value)
            for p in params
        },
        distributions={p.param_name: _distribution(p.distribution_json) for p in params},
        user_attrs={a.key: json.loads(a.value_json) for a in details[USER_ATTRS][row.trial_id]},
        system_attrs={
            a.key: json.loads(a.value_json) for a in details[SYSTEM_ATTRS][row.trial_id]
        },
        intermediate_values={
            v.step: step(v.intermediate_value, v.intermediate_value_type)
            for v in details[STEPS][row.trial_id]
        },
    )


@functools.lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _local(moment: datetime.datetime | None) -> datetime.datetime | None:
    """Return a stored time (UTC, without a zone) as trials have it: local, without a zone."""
    if moment is None:
        return None
    return moment.replace(tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)
