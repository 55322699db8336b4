"""Opening storages, and the cache of hashes."""

import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from command import invoke
from mergefront.errors import StudyError
from mergefront.examples.demo import BASE
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.study import StudySpec, seeding
from mergefront.study.results.report.dashboard import study_note
from mergefront.study.seeding import FINGERPRINT, SPEC, init_study
from mergefront.study.spec.hashing import cached_hash
from mergefront.study.spec.inputs import StudyInputs, load_inputs
from mergefront.study.storage.connection import (
    _engine,
    _full_url,
    load_study,
    open_storage,
    sqlite_path,
    state_dir,
    wait_for_study,
)
from mergefront.study.storage.ledger import Ledger
from mergefront.study.storage.outages import through_outages
from postgres import Server, serve
from processes import CONTEXT
from small_study import write_spec


def test_state_lies_beside_an_sqlite_file(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path))
    assert state_dir(spec) == tmp_path / "small.state"
    elsewhere = spec.with_overrides(storage="postgresql+psycopg2://user@host/db")
    assert state_dir(elsewhere) == Path("runs") / "small.state"


def test_only_sqlite_has_a_file() -> None:
    assert sqlite_path("sqlite:///runs/a.db") == Path("runs/a.db")
    assert sqlite_path("sqlite:////tmp/a.db") == Path("/tmp/a.db")
    assert sqlite_path("postgresql+psycopg2://user@host/db") is None


def test_looking_for_a_study_creates_nothing(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path))
    with pytest.raises(StudyError, match=r"no study 'small' in .*Start it with `mergefront run`"):
        load_study(spec)
    assert not (tmp_path / "study.db").exists()


def test_a_storage_that_cannot_be_opened_hides_the_password(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="needs a directory"):
        open_storage(f"sqlite:///{tmp_path}/file/study.db")
    with pytest.raises(StudyError) as caught:
        open_storage("postgresql+psycopg2://user:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)
    # It may be an earlier study's, which the spec's `study.storage` says nothing of.
    assert "mergefront[postgres]" in str(caught.value) or "Check this address" in str(caught.value)


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(BASE, tmp_path / "model")
    return tmp_path / "model"


def test_a_checkpoint_is_hashed_once(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Checkpoint(copied).weights_hash()
    assert cached_hash(Checkpoint(copied)) == expected
    monkeypatch.setattr(Checkpoint, "weights_hash", lambda self: pytest.fail("hashed again"))
    assert cached_hash(Checkpoint(copied)) == expected


def test_a_changed_file_is_hashed_again(copied: Path) -> None:
    before = cached_hash(Checkpoint(copied))
    weights = copied / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    os.utime(weights, ns=(1, 1))  # a clock that stands still must not hide the change of time
    assert cached_hash(Checkpoint(copied)) != before


@pytest.mark.parametrize("content", ["", "[", json.dumps([1])])
def test_a_broken_cache_costs_time_and_nothing_else(
    copied: Path, tmp_path: Path, content: str
) -> None:
    cache = tmp_path / "cache" / "mergefront" / "hashes.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert cached_hash(Checkpoint(copied)) == Checkpoint(copied).weights_hash()


def test_a_cache_that_cannot_be_written_is_no_error(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no-directory").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-directory"))
    assert cached_hash(Checkpoint(copied)).startswith("sha256:")


def _secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    (tmp_path / "secret").write_text(password + "\n")
    monkeypatch.setenv("MERGEFRONT_STORAGE_PASSWORD_FILE", str(tmp_path / "secret"))


def test_the_password_comes_from_a_secret_file_and_is_stored_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serve(password="Ga7!pass") as server:
        url = server.new_database()
        path = write_spec(tmp_path, study={"storage": url})
        with pytest.raises(StudyError, match="cannot be opened"):
            init_study(load_inputs(path))
        _secret(tmp_path, monkeypatch, "Ga7!pass")
        study = init_study(load_inputs(path))
        assert "Ga7" not in json.dumps(study.user_attrs)
        with_password = url.replace("postgres@", "postgres:Ga7!pass@")
        monkeypatch.delenv("MERGEFRONT_STORAGE_PASSWORD_FILE")
        other = write_spec(tmp_path, study={"storage": with_password, "name": "other"})
        assert "Ga7" not in json.dumps(init_study(load_inputs(other)).user_attrs)


def test_a_secret_file_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MERGEFRONT_STORAGE_PASSWORD_FILE", "/nowhere/secret")
    with pytest.raises(StudyError, match="/nowhere/secret: No such file"):
        open_storage("postgresql://user@127.0.0.1:1/db")


def test_other_databases_are_refused() -> None:
    with pytest.raises(StudyError, match="must be sqlite:///FILE or postgresql"):
        open_storage("mysql+pymysql://user@127.0.0.1:1/db")


def _init(path: Path) -> int:
    return len(init_study(load_inputs(path)).get_trials(deepcopy=False))


def test_many_that_create_one_study_at_once_create_it_once(
    tmp_path: Path, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_spec(tmp_path, study={"storage": storage_url})
    with CONTEXT.Pool(4) as pool:
        assert pool.map(_init, [path] * 4) == [8] * 4


def test_many_that_create_a_database_at_once_create_it_once(tmp_path: Path) -> None:
    for attempt in range(3):
        url = f"sqlite:///{tmp_path}/{attempt}.db"
        together = threading.Barrier(6)

        def create(index: int, url: str = url, together: threading.Barrier = together) -> str:
            together.wait()
            study = optuna.create_study(study_name=str(index), storage=open_storage(url))
            return study.study_name

        with ThreadPoolExecutor(6) as pool:
            names = list(pool.map(create, range(6)))
        assert sorted(optuna.get_all_study_names(url)) == names


def test_a_worker_waits_for_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = load_inputs(write_spec(tmp_path)).spec
    with pytest.raises(StudyError, match="no study 'small'"):
        wait_for_study(spec, 0.0, FINGERPRINT)
    attempts = []

    def pause(seconds: float) -> None:
        attempts.append(seconds)
        init_study(load_inputs(tmp_path / "spec.yaml"))

    monkeypatch.setattr(time, "sleep", pause)
    assert wait_for_study(spec, 60.0, FINGERPRINT).study_name == "small"
    assert attempts == [1.0]


def test_reading_a_database_that_is_not_there_creates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(StudyError, match=r"no database at .*none\.db; nothing was created"):
        open_storage(f"sqlite:///{path}", create=False)
    done = invoke("select", tmp_path / "catalogue.yaml", "--storage", f"sqlite:///{path}")
    assert (done.exit_code, "nothing was created" in done.stderr) == (1, True)
    assert not list(tmp_path.iterdir())


def test_a_database_without_studies_is_called_so(storage_url: str) -> None:
    if (path := sqlite_path(storage_url)) is not None:
        path.touch()
    with pytest.raises(StudyError, match=r"holds no study: it has no tables of Optuna\. Check"):
        open_storage(storage_url, create=False)


PASSWORD = "Ga7pass"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{PASSWORD}@{PASSWORD}@127.0.0.1:1/db",
        f"postgresql://user:{PASSWORD}@127.0.0.1:{PASSWORD}/db",
        f"postgresql//user:{PASSWORD}@127.0.0.1:1/db",
        f"postgresql://127.0.0.1:1/db?user=u&password={PASSWORD}",
        f"postgresql://127.0.0.1:1/db?user=u&password=a@{PASSWORD}",
        f"postgresql://user:p@{PASSWORD}/w%rd#1?:x@127.0.0.1:1/db",
        f"postgresql://user:p@ss/{PASSWORD}@127.0.0.1:1/db",
        f"postgresql://user:p@ss?{PASSWORD}@127.0.0.1:1/db",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    with pytest.raises(StudyError) as caught:
        open_storage(url)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("driver", "advice"), [("psycopg", "pip install psycopg`, or write postgresql://")]
)
def test_a_driver_that_is_missing_is_named(
    driver: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)  # as if it were not installed
    with pytest.raises(StudyError, match=advice):
        open_storage(f"postgresql+{driver}://127.0.0.1:1/db")


def test_a_password_in_the_query_is_not_stored(tmp_path: Path, secured: Server) -> None:
    url = secured.new_database() + f"?password={PASSWORD}"
    study = init_study(load_inputs(write_spec(tmp_path, study={"storage": url})))
    assert PASSWORD not in json.dumps(study.user_attrs)
    assert PASSWORD not in study_note(study)
    assert "?password=***" in study.user_attrs[SPEC]["study"]["storage"]
    wrong = url.replace(PASSWORD, "wrong-text")
    with pytest.raises(StudyError, match="password authentication failed") as caught:
        open_storage(wrong)
    assert "wrong-text" not in str(caught.value)


@pytest.fixture
def secured() -> Iterator[Server]:
    with serve(password=PASSWORD) as server:
        yield server


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_study_needs_a_file(url: str) -> None:
    with pytest.raises(StudyError, match="outlives its process"):
        open_storage(url)


def test_the_home_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert sqlite_path("sqlite:///~/runs/a.db") == tmp_path / "runs" / "a.db"
    open_storage("sqlite:///~/runs/a.db")
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def test_one_file_by_two_paths_has_one_state(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path))
    (tmp_path / "study.db").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.db").symlink_to(tmp_path / "study.db")
    linked = spec.with_overrides(storage=f"sqlite:///{tmp_path}/elsewhere/link.db")
    assert state_dir(linked) == state_dir(spec)


def test_a_study_of_another_tool_is_left_as_it_is(tmp_path: Path, storage_url: str) -> None:
    inputs = load_inputs(write_spec(tmp_path, study={"storage": storage_url}))
    directions = list(reversed(inputs.spec.directions))
    for name, queued in (("small", True), ("reversed", False)):
        spec = inputs.spec.model_copy(update={"study": inputs.spec.study.model_copy()})
        spec.study.__dict__["name"] = name
        ours = replace(inputs, spec=spec)
        foreign = optuna.create_study(
            study_name=name,
            storage=open_storage(storage_url),
            directions=inputs.spec.directions if queued else directions,
        )
        if queued:
            foreign.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
            foreign.enqueue_trial({"x": 0.5})
        before = [(t.state, t.user_attrs) for t in foreign.get_trials()]
        with pytest.raises(StudyError, match="was not made by MergeFront"):
            init_study(ours)
        with pytest.raises(StudyError, match="was not made by MergeFront"):
            load_study(spec)
        assert [(t.state, t.user_attrs) for t in foreign.get_trials()] == before
        assert (foreign.user_attrs, foreign.metric_names) == ({}, None)


def test_without_a_lock_that_holds_the_seeds_are_queued_once(
    tmp_path: Path, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inputs = load_inputs(write_spec(tmp_path, study={"storage": storage_url}))
    open_storage(storage_url)
    together = threading.Barrier(3)

    class NoLock:
        def __init__(self) -> None:
            self.engine = _engine(_full_url(storage_url))

        @contextmanager
        def hold(self) -> Iterator[Connection]:
            with self.engine.connect() as connection:
                yield connection

    def slow(inputs: StudyInputs) -> None:
        together.wait()

    begun = init_study(inputs, queue=False)
    optuna.delete_study(study_name="small", storage=begun._storage)
    optuna.create_study(
        study_name="small", storage=begun._storage, directions=inputs.spec.directions
    )
    monkeypatch.setattr(seeding, "study_lock", lambda spec: NoLock())
    monkeypatch.setattr(seeding, "compute_importance", slow)
    with ThreadPoolExecutor(3) as pool:
        studies = list(pool.map(lambda _: init_study(inputs), range(3)))
    assert [len(study.get_trials()) for study in studies] == [8] * 3


def test_tables_of_another_version_are_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    open_storage(url)
    with _engine(_full_url(url)).begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'v9.9.9.a'"))
    with pytest.raises(StudyError, match="another version of Optuna"):
        open_storage(url)


def test_a_file_that_is_no_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database\n" * 100)
    with pytest.raises(StudyError, match="file is not a database"):
        open_storage(f"sqlite:///{tmp_path}/study.db")


def test_a_file_that_is_gone_is_no_outage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=open_storage(url))
    (tmp_path / "study.db").unlink()
    ledger = Ledger(study, "mark")
    with pytest.raises(OperationalError, match="no such table"):
        through_outages(
            lambda: ledger.check_study(_engine(_full_url(url)).connect()),
            lambda seconds: pytest.fail("waited"),
        )
