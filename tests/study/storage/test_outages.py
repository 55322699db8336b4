"""While the database is away, and when a worker is asked to stop."""

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Engine
from sqlalchemy.exc import ProgrammingError

from mergefront.study.run import run
from mergefront.study.seeding import FINGERPRINT, init_study
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study, open_storage, wait_for_study
from mergefront.study.storage.ledger import Ledger
from mergefront.study.storage.outages import through_outages
from mergefront.study.workers.claims import Claims
from mergefront.study.workers.liveness import Pulse
from mergefront.study.workers.termination import Interrupted, Termination
from mergefront.study.workers.worker import SilentReporter
from postgres import Server, serve
from small_study import write_spec


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server to be stopped, of this module alone."""
    with serve() as server:
        yield server


@pytest.fixture
def study(server: Server) -> optuna.Study:
    storage = open_storage(server.new_database())
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(storage=storage, sampler=sampler)


def _silence(study: optuna.Study) -> float:
    ledger = Ledger(study)
    with ledger.engine.begin() as connection:
        (silence,) = ledger.silences(connection).values()
    return silence


def test_an_action_is_repeated_until_the_database_is_back(
    server: Server, study: optuna.Study
) -> None:
    server.stop()
    threading.Timer(1.5, server.start).start()
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        time.sleep(seconds)

    assert through_outages(lambda: study.get_trials(deepcopy=False), sleep) == []
    assert pauses[:2] == [0.5, 1.0]


def test_a_server_that_only_reads_for_a_while_is_away(server: Server, study: optuna.Study) -> None:
    """As a primary does that has become a standby."""
    database = open_storage(server.new_database())
    engine = Ledger(optuna.create_study(storage=database)).engine
    name = engine.url.database

    def only_reads(on: bool) -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sqlalchemy.text("SET default_transaction_read_only = off"))
            value = "on" if on else "off"
            line = f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}'
            connection.execute(sqlalchemy.text(line))
        engine.dispose()

    def write() -> None:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("UPDATE studies SET study_name = 'other'"))

    only_reads(True)
    through_outages(write, lambda seconds: only_reads(False))
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("SELECT study_name FROM studies"))
        assert found.scalar() == "other"


def test_other_errors_are_raised_at_once(study: optuna.Study) -> None:
    def wrong() -> None:
        with Ledger(study).engine.begin() as connection:
            connection.execute(sqlalchemy.text("SELECT * FROM nothing"))

    with pytest.raises(ProgrammingError):
        through_outages(wrong, lambda seconds: pytest.fail("waited"))


def test_a_worker_that_starts_in_an_outage_waits(server: Server, tmp_path: Path) -> None:
    inputs = load_inputs(write_spec(tmp_path, study={"storage": server.new_database()}))
    init_study(inputs)
    outages: list[str] = []

    def cut_off(connection: object, cursor: object, statement: str, *others: object) -> None:
        if not outages and "FROM study_directions" in statement:  # in the middle of the loading
            outages.append(statement)
            server.restart()

    sqlalchemy.event.listen(Engine, "before_cursor_execute", cut_off)
    try:
        study = wait_for_study(inputs.spec, 60.0, FINGERPRINT)
    finally:
        sqlalchemy.event.remove(Engine, "before_cursor_execute", cut_off)
    assert outages and study.study_name == "small"


def test_status_watches_on_through_an_outage(server: Server, tmp_path: Path) -> None:
    path = write_spec(tmp_path, study={"storage": server.new_database()})
    init_study(load_inputs(path))
    line = [sys.executable, "-m", "mergefront", "status", str(path), "--watch", "--format", "json"]
    watching = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert watching.stdout is not None
    try:
        assert watching.stdout.readline() == "{\n"  # the first look
        server.restart(away_seconds=6.0)
        looks = (text for text in iter(watching.stdout.readline, "") if text == "{\n")
        assert next(looks, None) and next(looks, None)
        assert watching.poll() is None
    finally:
        watching.send_signal(signal.SIGINT)
        assert "Traceback" not in watching.communicate(timeout=60)[1]


def test_the_heartbeat_outlives_an_outage(server: Server, study: optuna.Study) -> None:
    claims = Claims(study, 1, {"layer_000": FloatDistribution(0, 1)})
    with claims.ledger.engine.connect() as connection:
        trial = claims.claim(connection, {"worker": "me"})
    assert isinstance(trial, FrozenTrial)
    with Pulse(study, 0.2) as pulse:
        pulse.follow(trial)
        time.sleep(0.5)
        server.restart(away_seconds=1.0)
        for _ in range(50):
            if through_outages(lambda: _silence(study)) < 0.2:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("no heartbeat after the outage")
        pulse.follow(None)
        time.sleep(1.0)
        assert _silence(study) > 0.5  # none for a trial that is done


def test_sigterm_waits_where_it_would_do_harm() -> None:
    with Termination() as termination:
        os.kill(os.getpid(), signal.SIGTERM)
        done = "a delivery"
        with pytest.raises(Interrupted), termination.at_once():
            pytest.fail("the signal was forgotten")
        with pytest.raises(Interrupted):
            termination.sleep(60)
    assert done == "a delivery"


def test_sigterm_ends_an_evaluation_at_once_and_once() -> None:
    with Termination() as termination:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        start = time.monotonic()
        with pytest.raises(Interrupted):
            termination.sleep(60)
        assert time.monotonic() - start < 30
        os.kill(os.getpid(), signal.SIGTERM)  # while the trial is given back


def test_the_previous_handler_is_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Termination():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


class _Noted:
    """Something that a weak reference may point to."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_within_a_weak_references_callback_is_not_dropped(
    number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    noted = _Noted()
    reference = weakref.ref(noted, lambda _: os.kill(os.getpid(), number))
    with Termination() as termination:
        start = time.monotonic()
        with pytest.raises((Interrupted, KeyboardInterrupt)), termination.at_once():
            del noted
            time.sleep(60)
        assert time.monotonic() - start < 30
    assert reference() is None
    assert "Traceback" not in capfd.readouterr().err


class _Interrupted(SilentReporter):
    def started(self, trial: FrozenTrial, n_questions: int) -> None:
        raise KeyboardInterrupt


def test_ctrl_c_before_the_first_answer_gives_the_trial_back(tmp_path: Path) -> None:
    inputs = load_inputs(write_spec(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run(inputs, reporter=_Interrupted())
    states = [trial.state for trial in load_study(inputs.spec).get_trials()]
    assert TrialState.RUNNING not in states and states.count(TrialState.FAIL) == 1
