"""Results on local disk, from the end of an evaluation until the database has them.

A process may be killed at any moment; what was measured must survive it. So a result is written
and flushed before the first of its attributes reaches the storage, and delivering it twice does
no harm.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact

from ..objectives.evaluation import Answer

_ANSWERS = "answers.jsonl"


@dataclass(frozen=True)
class Result:
    """What a finished evaluation leaves.

    Args:
        number: The trial's number.
        worker: Who evaluated it.
        values: One an objective.
        attributes: User attributes of the trial.
        answers: Rows of the per-question table.
    """

    number: int
    worker: str
    values: tuple[float, ...]
    attributes: dict[str, Any]
    answers: tuple[Answer, ...]


class Spool:
    """A directory of results that may not have been delivered yet.

    Args:
        directory: Created when needed.
        store: Where the per-question tables go.
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

    def pending(self) -> Iterable[tuple[Path, Result]]:
        """Return what is on disk, in the order of trials."""
        return [(path, _read(path)) for path in sorted(self._directory.glob("trial-*.json"))]

    def deliver(self, study: optuna.Study, path: Path, result: Result) -> None:
        """Bring a result into the storage and remove it from disk.

        A trial that is finished already keeps what it has.
        """
        trial = study.get_trials(deepcopy=False)[result.number]
        if not trial.state.is_finished():
            self._upload_answers(study, trial, path.with_suffix(f".{_ANSWERS}"), result)
            for key, value in result.attributes.items():
                study._storage.set_trial_user_attr(trial._trial_id, key, value)
            study.tell(result.number, result.values, skip_if_finished=True)
        path.unlink()

    def _upload_answers(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial, path: Path, result: Result
    ) -> None:
        path.write_text("".join(json.dumps(asdict(answer)) + "\n" for answer in result.answers))
        existing = get_all_artifact_meta(trial, storage=study._storage)
        if existing:  # an upload that was cut off: its entry may be there without its bytes
            with path.open("rb") as file:
                self._store.write(existing[0].artifact_id, file)
        else:
            upload_artifact(
                artifact_store=self._store,
                file_path=str(path),
                study_or_trial=trial,
                storage=study._storage,
                mimetype="application/jsonl",
            )
        path.unlink()


def _read(path: Path) -> Result:
    content = json.loads(path.read_text(encoding="utf-8"))
    answers = tuple(Answer(**answer) for answer in content.pop("answers"))
    values = tuple(content.pop("values"))
    return Result(**content, values=values, answers=answers)
