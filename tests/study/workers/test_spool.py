"""Results survive between evaluation and storage."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from filelock import FileLock
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from mergefront.objectives.evaluation import Answer
from mergefront.study.storage.connection import open_storage
from mergefront.study.storage.ledger import Ledger
from mergefront.study.storage.locks import FileStudyLock
from mergefront.study.workers.claims import Claims
from mergefront.study.workers.spool import Result, Spool
from small_study import read_json_lines

ANSWERS = (
    Answer("t/1", "t", 1.0, 2, "stop", "9"),
    Answer("t/2", "t", 0.0, 48, "length", "<think>a"),
)
STUDY = {
    "storage": "postgresql:1/2",
    "study_id": 1,
    "name": "small",
    "created": "a1",
    "fingerprint": {"models": "m"},
}
RESULT = Result(0, "me", (0.5, 25.0), {"standard_errors": [0.1, 1.0]}, ANSWERS)


@pytest.fixture
def store(tmp_path: Path) -> FileSystemArtifactStore:
    (tmp_path / "artifacts").mkdir()
    return FileSystemArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def spool(tmp_path: Path, store: FileSystemArtifactStore) -> Spool:
    return Spool(tmp_path / "spool", store, STUDY)


@pytest.fixture
def claims(storage_url: str) -> Claims:
    study = optuna.create_study(
        directions=["maximize", "minimize"],
        storage=open_storage(storage_url),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    return Claims(study, 2, {"layer_000": FloatDistribution(0, 1)})


@pytest.fixture
def lock(claims: Claims, tmp_path: Path) -> FileStudyLock:
    return FileStudyLock(claims.ledger.engine, tmp_path / "lock")


@pytest.fixture
def study(claims: Claims, lock: FileStudyLock) -> optuna.Study:
    """A study with one running trial."""
    with lock.hold() as connection:
        claims.claim(connection, {"worker": "me"})
    return claims.study


def test_a_result_survives_the_round_trip(spool: Spool) -> None:
    path = spool.write(RESULT)
    assert list(spool.pending()) == [(path, RESULT)]


def test_delivery_completes_the_trial_with_everything(
    spool: Spool, claims: Claims, lock: FileStudyLock, study: optuna.Study, tmp_path: Path
) -> None:
    spool.deliver(claims, lock, spool.write(RESULT), RESULT)
    (trial,) = study.trials
    assert trial.state == TrialState.COMPLETE
    assert trial.values == [0.5, 25.0]
    assert trial.user_attrs["standard_errors"] == [0.1, 1.0]
    metas = get_all_artifact_meta(trial, storage=study._storage)
    files = {meta.filename: tmp_path / "artifacts" / meta.artifact_id for meta in metas}
    assert files.keys() == {"trial-00000.answers.jsonl", "trial-00000.recipe.json"}
    assert json.loads(files["trial-00000.recipe.json"].read_text()) == trial.params
    assert read_json_lines(files["trial-00000.answers.jsonl"])[1] == {
        "question_id": "t/2",
        "task": "t",
        "score": 0.0,
        "n_tokens": 48,
        "finish_reason": "length",
        "text": "<think>a",
        "n_think_tokens": 0,
        "seconds": 0.0,
        "repeat": 0,
        "cluster": "",
        "signs": [],
    }
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_second_delivery_changes_nothing(
    spool: Spool, claims: Claims, lock: FileStudyLock, study: optuna.Study, tmp_path: Path
) -> None:
    spool.deliver(claims, lock, spool.write(RESULT), RESULT)
    other = replace(RESULT, values=(0.9, 1.0))
    spool.deliver(claims, lock, spool.write(other), other)
    (trial,) = study.trials
    assert trial.values == [0.5, 25.0]
    assert len(get_all_artifact_meta(trial, storage=study._storage)) == 2
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_delivery_that_is_cut_off_leaves_the_result_and_the_trial(
    spool: Spool,
    claims: Claims,
    lock: FileStudyLock,
    study: optuna.Study,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut_off(*arguments: object) -> None:
        raise KeyboardInterrupt

    path = spool.write(RESULT)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Ledger, "_set_attrs", cut_off)
        spool.deliver(claims, lock, path, RESULT)
    (trial,) = study.trials
    assert trial.state == TrialState.RUNNING
    assert trial.values is None
    spool.deliver(claims, lock, path, RESULT)
    assert study.trials[0].values == [0.5, 25.0]


def test_a_second_measurement_of_a_candidate_is_put_aside(
    spool: Spool, claims: Claims, lock: FileStudyLock, study: optuna.Study, tmp_path: Path
) -> None:
    with lock.hold() as connection:
        claims.reclaim(connection, study.trials)
        claims.claim(connection, {"worker": "other"})
    spool.deliver(claims, lock, spool.write(RESULT), RESULT)
    again = replace(RESULT, number=1, worker="other", values=(0.6, 26.0))
    spool.deliver(claims, lock, spool.write(again), again)
    assert [t.values for t in study.trials] == [None, [0.5, 25.0]]
    (kept,) = (tmp_path / "spool" / "superseded").iterdir()
    assert json.loads(kept.read_text())["values"] == [0.6, 26.0]
    assert list(spool.pending()) == []


def test_only_the_deads_results_are_delivered_for_them_and_by_one_worker(
    spool: Spool, claims: Claims, lock: FileStudyLock, study: optuna.Study, tmp_path: Path
) -> None:
    spool.write(RESULT)
    spool.deliver_for_the_dead(claims, lock, lambda worker: worker == "me", is_dead)
    assert study.trials[0].state == TrialState.RUNNING
    with FileLock(tmp_path / "spool" / "sweep.lock"):
        spool.deliver_for_the_dead(claims, lock, lambda worker: False, is_dead)
    assert study.trials[0].state == TrialState.RUNNING
    spool.deliver_for_the_dead(claims, lock, lambda worker: False, is_dead)
    assert study.trials[0].values == [0.5, 25.0]


def test_half_a_file_is_no_result(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "spool" / "trial-00000.tmp").write_text('{"number": 0')
    assert list(spool.pending()) == []


def test_what_the_dead_had_written_whole_is_delivered_and_the_rest_removed(
    spool: Spool, claims: Claims, lock: FileStudyLock, study: optuna.Study, tmp_path: Path
) -> None:
    path = spool.write(RESULT)
    path.rename(path.with_suffix(".tmp"))  # killed before it was named
    half = path.with_name("trial-00001-dead-1-ab.tmp")
    half.write_text('{"number": 1, "wor')
    mine = path.with_name("trial-00002-alive-1-ab.tmp")
    mine.write_text('{"number": 2, "wor')
    spool.deliver_for_the_dead(claims, lock, lambda worker: worker == "alive-1-ab", is_dead)
    assert study.trials[0].values == [0.5, 25.0]
    assert list((tmp_path / "spool").glob("trial-*")) == [mine]


def is_dead(worker: str) -> bool:
    """Whether a worker ran on this machine: those of other machines are called `there`."""
    return not worker.startswith("there")


def test_a_worker_elsewhere_writes_on_while_its_folder_is_swept(
    spool: Spool,
    claims: Claims,
    lock: FileStudyLock,
    study: optuna.Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half = tmp_path / "spool" / "trial-00001-there-1-ab.tmp"
    half.write_text('{"number": 1, "wor')
    flush = os.fsync

    def swept_meanwhile(number: int) -> None:
        flush(number)
        spool.deliver_for_the_dead(claims, lock, lambda worker: False, is_dead)

    monkeypatch.setattr(os, "fsync", swept_meanwhile)
    path = spool.write(RESULT)
    assert study.trials[0].values == [0.5, 25.0]
    spool.deliver(claims, lock, path, RESULT)
    assert len(study.get_trials(states=(TrialState.COMPLETE,))) == 1
    assert list((tmp_path / "spool").glob("trial-*")) == [half]


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.json"))


@pytest.mark.parametrize(
    "changed",
    [
        {"created": "b2"},
        {"study_id": 2},
        {"fingerprint": {"models": "other"}},
        {"name": "other"},
        {"storage": "sqlite:/nowhere/study.db", "created": "b2"},
    ],
)
def test_a_result_of_another_study_is_put_aside_and_named(
    claims: Claims,
    lock: FileStudyLock,
    study: optuna.Study,
    store: FileSystemArtifactStore,
    tmp_path: Path,
    changed: dict[str, object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = Spool(tmp_path / "spool", store, {**STUDY, **changed}).write(RESULT)
    Spool(tmp_path / "spool", store, STUDY).deliver_for_the_dead(
        claims, lock, lambda _: False, is_dead
    )
    assert study.trials[0].state == TrialState.RUNNING
    assert path.name in caplog.text and "another study" in caplog.text
    assert len(_names(tmp_path / "spool" / "put-aside")) == 1


def test_a_result_of_another_database_waits_for_its_own_workers(
    spool: Spool,
    claims: Claims,
    lock: FileStudyLock,
    study: optuna.Study,
    store: FileSystemArtifactStore,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "copy.db").touch()
    copy = {**STUDY, "storage": f"sqlite:{tmp_path}/copy.db"}
    path = Spool(tmp_path / "spool", store, copy).write(RESULT)
    for _ in range(2):
        spool.deliver_for_the_dead(claims, lock, lambda worker: False, is_dead)
    assert study.trials[0].state == TrialState.RUNNING
    assert path.exists()
    assert caplog.text.count("copy.db") == 1
    (tmp_path / "copy.db").unlink()  # the file was moved: it is this one
    spool.deliver_for_the_dead(claims, lock, lambda worker: False, is_dead)
    assert study.trials[0].values == [0.5, 25.0]


@pytest.mark.parametrize(
    "other",
    [
        replace(RESULT, worker="you"),
        replace(RESULT, number=7),
        replace(RESULT, number=-1),
        replace(RESULT, values=(1.0,)),
    ],
)
def test_an_attempt_that_the_study_does_not_have_is_put_aside(
    spool: Spool,
    claims: Claims,
    lock: FileStudyLock,
    study: optuna.Study,
    tmp_path: Path,
    other: Result,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = spool.write(other)
    spool.deliver_for_the_dead(claims, lock, lambda worker: False, is_dead)
    assert study.trials[0].state == TrialState.RUNNING
    assert path.name in caplog.text
    assert len(_names(tmp_path / "spool" / "put-aside")) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"null", b'{"number": 0}', b"\xff\xfe", b"[" * 5000]
)
def test_a_broken_file_is_put_aside_and_the_next_is_delivered(
    spool: Spool,
    claims: Claims,
    lock: FileStudyLock,
    study: optuna.Study,
    tmp_path: Path,
    content: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "spool" / "trial-00000-a.json").write_bytes(content)
    spool.write(RESULT)
    spool.deliver_for_the_dead(claims, lock, lambda worker: False, is_dead)
    assert study.trials[0].values == [0.5, 25.0]
    assert "trial-00000-a.json was not delivered: it cannot be read" in caplog.text
    (kept,) = (tmp_path / "spool" / "put-aside").iterdir()
    assert kept.read_bytes() == content


def test_two_that_deliver_one_result_leave_it_once(
    spool: Spool, claims: Claims, lock: FileStudyLock, study: optuna.Study, tmp_path: Path
) -> None:
    with lock.hold() as connection:
        claims.reclaim(connection, study.trials)
    path = spool.write(RESULT)
    (first, result), *_ = spool.pending()
    spool.deliver(claims, lock, path, result)
    spool.deliver(claims, lock, first, result)  # found before the other had removed it
    assert [t.state.name for t in study.trials] == ["FAIL", "COMPLETE"]
    assert [p.name for p in (tmp_path / "spool").iterdir() if p.is_dir()] == []


def test_two_workers_results_of_one_number_do_not_overwrite_each_other(spool: Spool) -> None:
    paths = {spool.write(RESULT), spool.write(replace(RESULT, worker="you"))}
    assert {path for path, _ in spool.pending()} == paths and len(paths) == 2


def test_nothing_of_a_result_is_left_on_a_full_disk(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        spool.write(RESULT)
    assert list((tmp_path / "spool").iterdir()) == []
