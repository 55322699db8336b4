"""Results on local disk, from the end of an evaluation until the database has them.

A process may be killed at any moment, and a database may be away; what was measured must survive
both. So a result is written and flushed before anything of it reaches the storage, it reaches it
in one transaction, and delivering it twice does no harm.
"""

import json
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.artifacts import FileSystemArtifactStore
from optuna.study._constrained_optimization import _CONSTRAINTS_KEY
from optuna.trial import FrozenTrial, TrialState

from ...objectives.evaluation import Answer
from ...samplers import MEASURED
from ..storage.artifacts import answer_table, store_artifact
from ..storage.ledger import Ending
from ..storage.locks import StudyLock
from .claims import Claims

_SUPERSEDED = "superseded"


@dataclass(frozen=True)
class Result:
    """What a finished evaluation leaves.

    Args:
        number: The trial's number.
        worker: Who evaluated it.
        values: One an objective.
        attributes: User attributes of the trial.
        answers: Rows of the per-question table.
        constraints: Name -> by how much it is violated.
        pruned: Whether it was stopped early.
    """

    number: int
    worker: str
    values: tuple[float, ...]
    attributes: dict[str, Any]
    answers: tuple[Answer, ...]
    constraints: dict[str, float] = field(default_factory=dict)
    pruned: bool = False


class Spool:
    """A directory of results that may not have been delivered yet.

    Args:
        directory: Created when needed.
        store: Where recipes and per-question tables go.
    """

    def __init__(self, directory: Path, store: FileSystemArtifactStore) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._store = directory, store

    def write(self, result: Result) -> Path:
        """Put a result on disk; it is complete or not there at all."""
        path = self._directory / f"trial-{result.number:05d}.json"
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(asdict(result), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return path

    def deliver_for_the_dead(
        self, claims: Claims, lock: StudyLock, is_alive: Callable[[str], bool]
    ) -> None:
        """Deliver what workers left that run no more; one worker at a time does so.

        Args:
            claims: On the study.
            lock: The study's.
            is_alive: Tells whether the worker of a name runs on this machine.
        """
        try:
            with FileLock(self._directory / "sweep.lock", timeout=0):
                for path, result in self.pending():
                    if not is_alive(result.worker):
                        self.deliver(claims, lock, path, result)
        except Timeout:
            return

    def pending(self) -> Iterator[tuple[Path, Result]]:
        """Return what is on disk, in the order of trials."""
        for path in sorted(self._directory.glob("trial-*.json")):
            try:
                yield path, _read(path)
            except FileNotFoundError:  # its worker has just delivered it
                continue

    def deliver(self, claims: Claims, lock: StudyLock, path: Path, result: Result) -> None:
        """Bring a result into the storage and remove it from disk.

        If its worker was taken for dead meanwhile, the newest attempt at the same candidate gets
        it (`Claims.adopt`). A second measurement of a candidate is moved to `superseded/`.
        """
        with claims.ledger.engine.connect() as connection:
            trial = claims.trials(connection)[result.number]
            ending = self._ending(claims.study, trial, result)
            with connection.begin():
                delivered = claims.ledger.end(connection, trial._trial_id, ending)
        if not delivered and not _is_delivered(trial, result):
            with lock.hold() as connection:
                delivered = claims.adopt(connection, result.number, ending)
            if not delivered:
                self._put_aside(path)
                return
        path.unlink()

    def _ending(self, study: optuna.Study, trial: FrozenTrial, result: Result) -> Ending:
        owner, name = f"{study.study_name}/{result.worker}", f"trial-{result.number:05d}"
        table, recipe = answer_table(result.answers), json.dumps(trial.params)
        attrs = {
            **store_artifact(self._store, owner, f"{name}.answers.jsonl", table),
            **store_artifact(self._store, owner, f"{name}.recipe.json", recipe),
            # As `trial.set_constraint` writes them.
            **{f"{_CONSTRAINTS_KEY}:{key}": value for key, value in result.constraints.items()},
        }
        state = TrialState.PRUNED if result.pruned else TrialState.COMPLETE
        return Ending(state, result.values, result.attributes, attrs)

    def _put_aside(self, path: Path) -> None:
        directory = self._directory / _SUPERSEDED
        directory.mkdir(exist_ok=True)
        path.replace(directory / f"{path.stem}-{uuid.uuid4().hex[:8]}.json")


def _is_delivered(trial: FrozenTrial, result: Result) -> bool:
    """Whether this very attempt has ended: its delivery was cut off after the transaction."""
    same_worker = trial.user_attrs.get("worker") == result.worker
    return trial.state in MEASURED and same_worker


def _read(path: Path) -> Result:
    content = json.loads(path.read_text(encoding="utf-8"))
    answers = tuple(Answer(**answer) for answer in content.pop("answers"))
    values = tuple(content.pop("values"))
    return Result(**content, values=values, answers=answers)
