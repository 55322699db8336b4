"""One worker at a time, on one machine and on many."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from mergefront.errors import StudyError
from mergefront.study import StudySpec
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage import locks
from mergefront.study.storage.connection import check_storage, load_study
from mergefront.study.storage.locks import AdvisoryLock, FileStudyLock, StudyLock
from pgbouncer import pool, program
from postgres import Server
from processes import CONTEXT
from small_study import write_spec


def _engine(url: str) -> sqlalchemy.Engine:
    return sqlalchemy.create_engine(
        url.replace("postgresql:", "postgresql+psycopg2:"), poolclass=NullPool
    )


def _make(url: str, folder: Path, patience: float = 30.0) -> StudyLock:
    if url.startswith("sqlite"):
        return FileStudyLock(_engine(url), folder / "lock")
    return AdvisoryLock(_engine(url), "study", patience)


def _increment(url: str, folder: Path, times: int) -> None:
    """Read, wait, write: loses counts unless nobody else is in between."""
    lock, counter = _make(url, folder), folder / "counter"
    for _ in range(times):
        with lock.hold():
            n = int(counter.read_text())
            time.sleep(0.005)
            counter.write_text(str(n + 1))


def test_processes_exclude_each_other(storage_url: str, tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    arguments = (storage_url, tmp_path, 20)
    processes = [CONTEXT.Process(target=_increment, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "counter").read_text() == "60"


def _hold(url: str, folder: Path) -> None:
    with _make(url, folder).hold():
        (folder / "held").touch()
        time.sleep(600)


def _start_holder(url: str, folder: Path) -> "multiprocessing.process.BaseProcess":
    process = CONTEXT.Process(target=_hold, args=(url, folder))
    process.start()
    while not (folder / "held").exists():
        time.sleep(0.05)
    return process


def test_the_lock_of_a_killed_process_is_free(storage_url: str, tmp_path: Path) -> None:
    process = _start_holder(storage_url, tmp_path)
    process.kill()
    with _make(storage_url, tmp_path).hold() as connection:
        assert connection.execute(sqlalchemy.text("SELECT 1")).scalar_one() == 1
    process.join()


def test_a_stopped_holder_loses_the_lock_after_the_patience(
    postgres: Server, tmp_path: Path
) -> None:
    url = postgres.new_database()
    process = _start_holder(url, tmp_path)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    start = time.monotonic()
    with _make(url, tmp_path, patience=1.0).hold():
        assert time.monotonic() - start >= 1.0
    process.kill()
    process.join()


def test_who_lost_the_lock_cannot_write_any_more(postgres: Server, tmp_path: Path) -> None:
    url = postgres.new_database()
    lock = _make(url, tmp_path)
    with pytest.raises(OperationalError), lock.hold() as connection:
        with _engine(url).connect() as other:
            end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
            other.execute(sqlalchemy.text(end))
        connection.execute(sqlalchemy.text("CREATE TABLE written (id int)"))


def test_studies_of_one_database_do_not_wait_for_each_other(
    postgres: Server, tmp_path: Path
) -> None:
    engine = _engine(postgres.new_database())
    with AdvisoryLock(engine, "one", 30.0).hold(), AdvisoryLock(engine, "two", 30.0).hold():
        pass


def test_a_holder_that_computes_longer_than_the_patience_keeps_the_lock(
    postgres: Server, tmp_path: Path
) -> None:
    url = postgres.new_database()
    process = CONTEXT.Process(target=_compute, args=(url, tmp_path, 4.0))
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.05)
    with _make(url, tmp_path, patience=1.0).hold():
        assert (tmp_path / "written").exists()
    process.join()
    assert process.exitcode == 0


def _compute(url: str, folder: Path, seconds: float) -> None:
    with _make(url, folder, patience=1.0).hold() as connection:
        (folder / "held").touch()
        time.sleep(seconds)
        connection.execute(sqlalchemy.text("SELECT 1"))
        (folder / "written").touch()


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_a_role_whose_statements_time_out_still_ends_a_silent_holder(
    postgres: Server, tmp_path: Path, driver: str
) -> None:
    pytest.importorskip(driver)
    url = postgres.new_database()
    name = url.rsplit("/", 1)[1]
    postgres.execute(f"ALTER DATABASE {name} SET statement_timeout = '300ms'")
    process = _start_holder(url, tmp_path)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    engine = sqlalchemy.create_engine(
        url.replace("postgresql:", f"postgresql+{driver}:"), poolclass=NullPool
    )
    with AdvisoryLock(engine, "study", 1.0).hold():
        pass
    process.kill()
    process.join()


def test_who_waits_for_the_lock_heeds_signals(storage_url: str, tmp_path: Path) -> None:
    class Asked(Exception):
        pass

    def heed() -> None:
        raise Asked

    with _make(storage_url, tmp_path).hold():
        start = time.monotonic()
        with pytest.raises(Asked), _make(storage_url, tmp_path).hold(heed):
            pytest.fail("the lock was held by two")
        assert time.monotonic() - start < 20


needs_pgbouncer = pytest.mark.skipif(
    program() is None, reason="pgbouncer is not installed (Debian: apt-get install pgbouncer)"
)


@needs_pgbouncer
def test_a_pooler_that_lends_transactions_is_refused(postgres: Server) -> None:
    with (
        pool(postgres, "transaction") as url,
        pytest.raises(StudyError, match="lends transactions instead of sessions"),
    ):
        check_storage(url)


def test_a_lock_whose_session_changes_is_refused(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "backend", lambda connection: -1)
    with (
        pytest.raises(StudyError, match="lends transactions"),
        _make(postgres.new_database(), tmp_path).hold(),
    ):
        pytest.fail("it was held")


@needs_pgbouncer
def test_a_pooler_that_lends_sessions_serves_a_study(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pool(postgres, "session") as url:
        study = {"storage": url, "trials": 3}
        path = write_spec(tmp_path, 8, study=study, sampler={"preset": "random"})
        run(load_inputs(path))
        states = [t.state.name for t in load_study(StudySpec.from_yaml(path)).get_trials()]
    assert states == ["COMPLETE"] * 3
