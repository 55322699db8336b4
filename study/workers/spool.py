"""Results on local disk, from the end of an evaluation until the database has them.

A process may be killed at any moment, and a database may be away; what was measured must survive
both. So a result is written and flushed before anything of it reaches the storage, it reaches it
in one transaction, and delivering it twice does no harm. A file names the study and the attempt
that it is of; one that is of another study, or cannot be read, is kept and never delivered.
"""

import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.artifacts import FileSystemArtifactStore
from optuna.study._constrained_optimization import _CONSTRAINTS_KEY
from optuna.trial import FrozenTrial, TrialState
from pydantic import TypeAdapter, ValidationError

from ...objectives.evaluation import Answer
from ...samplers import MEASURED
from ..storage.artifacts import Asked, answer_table, store_artifact
from ..storage.identity import Identity, is_of, lives_elsewhere
from ..storage.ledger import Ending
from ..storage.locks import StudyLock
from .claims import MEASURED_AS, Claims

logger = logging.getLogger(__name__)

_SUPERSEDED, _PUT_ASIDE = "superseded", "put-aside"
# Key of a file: the study that its result is of.
_STUDY = "study"


@dataclass(frozen=True)
class Result:
    """What a finished evaluation leaves.

    Args:
        number: The trial's number.
        worker: Who evaluated it.
        values: One per objective; none of a candidate that was screened.
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
        directory: Created when needed; studies of one name may share it.
        store: Where recipes and per-question tables go.
        study: Whose results are written and delivered. Defaults to None: files name no study.
        asked: The questions, for the tables of answers. Defaults to None: ids alone.
    """

    def __init__(
        self,
        directory: Path,
        store: FileSystemArtifactStore,
        study: Identity | None = None,
        asked: Asked | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory, self._store, self._study = directory, store, study or {}
        self._asked = asked
        self._left_alone: set[Path] = set()

    def write(self, result: Result) -> Path:
        """Put a result on disk; it is complete or not there at all.

        Raises:
            OSError: If the disk is full or cannot be written; nothing is left then.
        """
        path = self._directory / f"trial-{result.number:05d}-{result.worker}.json"
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump({**asdict(result), _STUDY: self._study}, file)
                file.flush()
                os.fsync(file.fileno())
            _name(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        return path

    def deliver_for_the_dead(
        self,
        claims: Claims,
        lock: StudyLock,
        is_alive: Callable[[str], bool],
        is_dead: Callable[[str], bool],
    ) -> None:
        """Deliver what workers left that run no more; one worker at a time does so.

        Of a worker elsewhere, that shares this folder, nobody here can tell: what it has written
        is delivered, which does no harm, and nothing of it is removed.

        Args:
            claims: On the study.
            lock: The study's.
            is_alive: Tells whether the worker of a name runs on this machine.
            is_dead: Whether it ran on this machine and runs no more.
        """
        try:
            with FileLock(self._directory / "sweep.lock", timeout=0):
                self._take_up_the_unfinished(is_alive, is_dead)
                for path, result in self.pending():
                    if not is_alive(result.worker):
                        self.deliver(claims, lock, path, result)
        except Timeout:
            return

    def _take_up_the_unfinished(
        self, is_alive: Callable[[str], bool], is_dead: Callable[[str], bool]
    ) -> None:
        """Keep what the dead had written and not yet named; remove what they had half written."""
        for path in self._directory.glob("trial-*.tmp"):
            worker = path.stem.split("-", 2)[-1]
            if is_alive(worker):
                continue
            try:
                _read(path)
                path.replace(path.with_suffix(".json"))
            except OSError:  # it is not there any more, or cannot be read
                continue
            except (ValueError, RecursionError):
                if is_dead(worker):
                    path.unlink(missing_ok=True)

    def pending(self) -> Iterator[tuple[Path, Result]]:
        """Return what is on disk of this study, in the order of trials.

        What cannot be read, or is of a study that was here before, is put aside; what is of
        another database's study waits for that study's workers.
        """
        for path in sorted(self._directory.glob("trial-*.json")):
            try:
                study, result = _read(path)
            except FileNotFoundError:  # its worker has just delivered it
                continue
            except (ValueError, RecursionError, OSError) as error:
                self._put_aside(path, f"it cannot be read ({_short(error)})")
                continue
            if is_of(self._study, study):
                yield path, result
            elif lives_elsewhere(self._study, study):
                self._leave_alone(path, study)
            else:
                self._put_aside(path, "it is of another study of this name")

    def deliver(self, claims: Claims, lock: StudyLock, path: Path, result: Result) -> None:
        """Bring a result into the storage and remove it from disk.

        If its worker was considered dead meanwhile, the newest attempt at the same candidate gets
        it (`Claims.adopt`). A second measurement of a candidate is moved to `superseded/`.
        """
        trials = _trials(claims)
        trial = self._attempt(claims, trials, result)
        if trial is None:
            self._put_aside(path, f"the study has no such attempt at trial {result.number}")
            return
        ending = self._ending(claims.study, trial, result)
        with claims.ledger.engine.begin() as connection:
            delivered = claims.ledger.end(connection, trial._trial_id, ending)
        if not delivered and not _is_delivered(_trials(claims), result):
            with lock.hold() as connection:
                claims.adopt(connection, result.number, ending)
            if not _is_delivered(_trials(claims), result):
                self._move(path, _SUPERSEDED)
        path.unlink(missing_ok=True)

    @staticmethod
    def _attempt(
        claims: Claims, trials: Sequence[FrozenTrial], result: Result
    ) -> FrozenTrial | None:
        """Return the trial that a result is of; None if the study does not have this attempt."""
        if not 0 <= result.number < len(trials):
            return None
        trial = trials[result.number]
        # A trial that was completed by an earlier attempt has that attempt's worker.
        ours = trial.user_attrs.get("worker") == result.worker or MEASURED_AS in trial.user_attrs
        fits = len(result.values) == len(claims.study.directions)
        screened = result.pruned and not result.values
        return trial if ours and (fits or screened) else None

    def _ending(self, study: optuna.Study, trial: FrozenTrial, result: Result) -> Ending:
        owner, name = f"{study.study_name}/{result.worker}", f"trial-{result.number:05d}"
        table, recipe = answer_table(result.answers, self._asked), json.dumps(trial.params)
        attrs = {
            **store_artifact(self._store, owner, f"{name}.answers.jsonl", table),
            **store_artifact(self._store, owner, f"{name}.recipe.json", recipe),
            # As `trial.set_constraint` writes them.
            **{f"{_CONSTRAINTS_KEY}:{key}": value for key, value in result.constraints.items()},
        }
        state = TrialState.PRUNED if result.pruned else TrialState.COMPLETE
        return Ending(state, result.values, result.attributes, attrs)

    def _put_aside(self, path: Path, reason: str) -> None:
        kept = self._move(path, _PUT_ASIDE)
        if kept is not None:
            logger.warning("%s was not delivered: %s. It is kept as %s", path.name, reason, kept)

    def _leave_alone(self, path: Path, study: Identity) -> None:
        if path not in self._left_alone:
            self._left_alone.add(path)
            logger.warning(
                "%s is a result of the study of this name in %s, and waits for its workers",
                path,
                study["storage"],
            )

    def _move(self, path: Path, folder: str) -> Path | None:
        """Move a file into a folder of the spool; None if another worker did."""
        directory = self._directory / folder
        directory.mkdir(exist_ok=True)
        kept = directory / f"{path.stem}-{uuid.uuid4().hex[:8]}.json"
        try:
            path.replace(kept)
        except FileNotFoundError:
            return None
        return kept


def _trials(claims: Claims) -> list[FrozenTrial]:
    with claims.ledger.engine.connect() as connection:
        return claims.trials(connection)


def _is_delivered(trials: Sequence[FrozenTrial], result: Result) -> bool:
    """Whether the study has this very measurement: its delivery was cut off, or done twice."""
    for trial in trials[result.number :]:
        number = trial.user_attrs.get(MEASURED_AS, trial.number)
        worker = trial.user_attrs.get("worker")
        if trial.state in MEASURED and (number, worker) == (result.number, result.worker):
            return True
    return False


def _name(temporary: Path, path: Path) -> None:
    """Give a written file its name; a worker elsewhere may have done so, and delivered it."""
    try:
        temporary.replace(path)
    except FileNotFoundError:
        logger.info("%s was taken up by another worker", path.name)


_RESULT = TypeAdapter(Result)


def _read(path: Path) -> tuple[Identity, Result]:
    """Read a file.

    Raises:
        ValueError: If it is torn, or holds anything else.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    study = content.pop(_STUDY, {}) if isinstance(content, dict) else {}
    return study if isinstance(study, dict) else {}, _RESULT.validate_python(content)


def _short(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return " ".join(str(error).split())[:120] or type(error).__name__
