"""Results survive between evaluation and storage."""

from pathlib import Path

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta
from optuna.trial import TrialState

from mergefront.objectives.evaluation import Answer
from mergefront.study.spool import Result, Spool
from small_study import read_json_lines

ANSWERS = (Answer("t/1", True, 2, "stop", "9"), Answer("t/2", False, 48, "length", "<think>a"))
RESULT = Result(0, "me", (0.5, 25.0), {"standard_errors": [0.1, 1.0]}, ANSWERS)


@pytest.fixture
def store(tmp_path: Path) -> FileSystemArtifactStore:
    (tmp_path / "artifacts").mkdir()
    return FileSystemArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def spool(tmp_path: Path, store: FileSystemArtifactStore) -> Spool:
    return Spool(tmp_path / "spool", store)


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    study = optuna.create_study(
        directions=["maximize", "minimize"], storage=f"sqlite:///{tmp_path}/study.db"
    )
    study.ask()
    return study


def test_a_result_survives_the_round_trip(spool: Spool) -> None:
    path = spool.write(RESULT)
    assert list(spool.pending()) == [(path, RESULT)]


def test_delivery_completes_the_trial_with_everything(
    spool: Spool, study: optuna.Study, tmp_path: Path
) -> None:
    spool.deliver(study, spool.write(RESULT), RESULT)
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    assert trial.values == [0.5, 25.0]
    assert trial.user_attrs["standard_errors"] == [0.1, 1.0]
    (meta,) = get_all_artifact_meta(trial, storage=study._storage)
    rows = read_json_lines(tmp_path / "artifacts" / meta.artifact_id)
    assert rows[1] == {
        "question_id": "t/2",
        "correct": False,
        "n_tokens": 48,
        "finish_reason": "length",
        "text": "<think>a",
    }
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_second_delivery_changes_nothing(spool: Spool, study: optuna.Study) -> None:
    spool.deliver(study, spool.write(RESULT), RESULT)
    other = Result(0, "me", (0.9, 1.0), {"standard_errors": [0, 0]}, ANSWERS)
    spool.deliver(study, spool.write(other), other)
    (trial,) = study.trials
    assert trial.values == [0.5, 25.0]
    assert trial.user_attrs["standard_errors"] == [0.1, 1.0]


def test_an_upload_that_was_cut_off_is_repeated_not_doubled(
    spool: Spool, study: optuna.Study, store: FileSystemArtifactStore, tmp_path: Path
) -> None:
    path = spool.write(RESULT)
    spool._upload_answers(study, study.trials[0], path.with_suffix(".answers.jsonl"), RESULT)
    (meta,) = get_all_artifact_meta(study.trials[0], storage=study._storage)
    store.remove(meta.artifact_id)  # its entry was written, its bytes were not
    spool.deliver(study, path, RESULT)
    (again,) = get_all_artifact_meta(study.trials[0], storage=study._storage)
    assert len(read_json_lines(tmp_path / "artifacts" / again.artifact_id)) == 2


def test_half_a_file_is_no_result(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "spool" / "trial-00000.tmp").write_text('{"number": 0')
    assert list(spool.pending()) == []
