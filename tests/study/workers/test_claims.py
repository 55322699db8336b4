"""Budget, death and retries, on real storages of both kinds."""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import Connection

from mergefront.errors import StudyError
from mergefront.study.storage.connection import open_storage
from mergefront.study.storage.ledger import Ending, Ledger
from mergefront.study.workers.claims import MAX_RETRIES, Claims, Outcome
from mergefront.study.workers.liveness import LocalWorkers, dead_trials, excludes_others
from processes import CONTEXT

SPACE: dict[str, BaseDistribution] = {
    "layer_000": FloatDistribution(0, 1),
    "layer_001": FloatDistribution(0, 1),
}
COMPLETE = Ending(TrialState.COMPLETE, [1.0, 1.0], {"n_questions": 5})


@pytest.fixture
def study(storage_url: str) -> Iterator[optuna.Study]:
    yield optuna.create_study(
        directions=["maximize", "minimize"],
        storage=open_storage(storage_url),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )


@pytest.fixture
def local(tmp_path: Path) -> LocalWorkers:
    return LocalWorkers(tmp_path / "workers")


@contextmanager
def _connect(study: optuna.Study) -> Iterator[Connection]:
    with Ledger(study).engine.connect() as connection:
        yield connection


def _claim(study: optuna.Study, worker: str = "me", budget: int = 2) -> FrozenTrial | Outcome:
    with _connect(study) as connection:
        return Claims(study, budget, SPACE).claim(connection, {"worker": worker})


def _taken(study: optuna.Study, **options: Any) -> FrozenTrial:
    trial = _claim(study, **options)
    assert isinstance(trial, FrozenTrial)
    return trial


def _reclaim(study: optuna.Study, *numbers: int) -> None:
    with _connect(study) as connection:
        dead = [study.get_trials(deepcopy=False)[number] for number in numbers]
        Claims(study, 2, SPACE).reclaim(connection, dead)


def _end(study: optuna.Study, trial: FrozenTrial, ending: Ending = COMPLETE) -> bool:
    with Ledger(study).engine.begin() as connection:
        return Ledger(study).end(connection, trial._trial_id, ending)


def _adopt(study: optuna.Study, number: int, budget: int = 2) -> bool:
    with _connect(study) as connection:
        return Claims(study, budget, SPACE).adopt(connection, number, COMPLETE)


def _states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.get_trials(deepcopy=False)]


def test_the_budget_counts_what_is_in_flight(study: optuna.Study) -> None:
    first, second = _taken(study), _taken(study)
    assert _claim(study) is Outcome.WAIT
    _end(study, first)
    assert _claim(study) is Outcome.WAIT
    _end(study, second, Ending(TrialState.FAIL))
    third = _taken(study)  # a failure does not use up the budget
    _end(study, third)
    assert _claim(study) is Outcome.DONE


def test_a_claim_is_marked_and_has_all_its_parameters(study: optuna.Study) -> None:
    trial = _taken(study)
    assert trial.user_attrs == {"worker": "me", "phase": "search"}
    assert trial.params.keys() == SPACE.keys()
    (stored,) = study.get_trials()
    assert (stored.number, stored._trial_id) == (trial.number, trial._trial_id)
    assert stored.params == trial.params
    assert stored.distributions == trial.distributions
    assert stored.state == TrialState.RUNNING


def test_numbers_count_on_after_trials_of_other_tools(study: optuna.Study) -> None:
    study.ask(SPACE)
    assert _taken(study, budget=9).number == 1
    study.ask(SPACE)
    assert [trial.number for trial in study.trials] == [0, 1, 2]


def test_queued_trials_come_first_and_keep_their_phase(study: optuna.Study) -> None:
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            params={"layer_000": 0.0, "layer_001": 0.5},
            distributions=SPACE,
            user_attrs={"phase": "uniform"},
        )
    )
    trial = _taken(study)
    assert trial.params == {"layer_000": 0.0, "layer_001": 0.5}
    assert trial.user_attrs == {"phase": "uniform", "worker": "me"}
    (stored,) = study.get_trials()
    assert stored.state == TrialState.RUNNING
    assert stored.user_attrs == trial.user_attrs


def test_the_samplers_notes_are_published_with_the_trial(study: optuna.Study) -> None:
    study.sampler = optuna.samplers.GPSampler(seed=0, n_startup_trials=2)
    for _ in range(2):
        _end(study, _taken(study, budget=5))
    trial = _taken(study, budget=5)
    assert any(key.startswith("gp:") for key in study.trials[2].system_attrs)
    assert trial.params == study.trials[2].params


def _hold(directory: Path, ready: "multiprocessing.Queue[bool]") -> None:
    lock = LocalWorkers(directory).register("other")
    ready.put(lock.is_locked)
    time.sleep(600)


def test_a_killed_process_is_dead_and_a_running_one_alive(
    tmp_path: Path, local: LocalWorkers
) -> None:
    ready = CONTEXT.Queue()
    process = CONTEXT.Process(target=_hold, args=(tmp_path / "workers", ready))
    process.start()
    assert ready.get(timeout=120)
    assert local.is_alive("other")
    assert not local.is_dead("other")
    assert not local.is_alive("never seen")
    assert not local.is_dead("never seen")  # it may live on another machine
    process.kill()
    process.join()
    assert not local.is_alive("other")
    assert local.is_dead("other")


def test_on_one_machine_the_dead_are_known_at_once(
    study: optuna.Study, local: LocalWorkers, tmp_path: Path
) -> None:
    (tmp_path / "workers" / "dead.lock").touch()  # nobody holds it
    _taken(study, worker="dead")
    _taken(study, worker="alive")
    with local.register("alive"), _connect(study) as connection:
        dead = dead_trials(Claims(study, 2, SPACE), connection, local, grace_seconds=60)
    assert [trial.number for trial in dead] == [0]


def test_what_the_dead_held_is_queued_again_as_a_whole(study: optuna.Study) -> None:
    dead = _taken(study, worker="dead")
    study._storage.set_trial_system_attr(dead._trial_id, "constraints:truncation", 0.5)
    _taken(study)
    _reclaim(study, 0)
    assert _states(study) == ["FAIL", "RUNNING", "WAITING"]
    failed, _, clone = study.get_trials()
    assert failed.user_attrs["failure"] == "its worker died"
    assert failed.constraints == {"truncation": 0.5}
    assert clone.params == failed.params
    assert clone.constraints == {}
    assert clone.system_attrs["failed_trial"] == 0
    assert clone.system_attrs["retry_history"] == [0]
    assert "worker" not in clone.user_attrs


def test_reclaiming_twice_queues_once(study: optuna.Study) -> None:
    stale = [_taken(study)]
    with _connect(study) as connection:
        Claims(study, 2, SPACE).reclaim(connection, stale)
        Claims(study, 2, SPACE).reclaim(connection, stale)
    assert _states(study) == ["FAIL", "WAITING"]


def test_a_candidate_cut_off_while_it_was_proposed_is_not_mixed_with_another(
    study: optuna.Study,
) -> None:
    study.ask({"layer_000": SPACE["layer_000"]})  # another tool, killed before layer_001
    _reclaim(study, 0)
    assert _states(study) == ["FAIL"]
    assert study.get_trials()[0].user_attrs["failure"].endswith("while it was proposed")


def test_a_point_that_kills_every_worker_ends(study: optuna.Study) -> None:
    for number in range(MAX_RETRIES + 1):
        assert _taken(study, worker="dead").number == number
        _reclaim(study, number)
    trials = study.get_trials()
    assert _states(study) == ["FAIL"] * 3
    assert trials[-1].system_attrs["failed_trial"] == 0
    assert trials[-1].system_attrs["retry_history"] == [0, 1]
    assert trials[-1].user_attrs["failure"] == "its worker died 3 times"


def test_a_late_result_completes_the_queued_attempt(study: optuna.Study) -> None:
    _taken(study, worker="late")
    _reclaim(study, 0)
    assert _adopt(study, 0)
    assert _states(study) == ["FAIL", "COMPLETE"]
    complete = study.get_trials()[1]
    assert complete.values == [1.0, 1.0]
    assert complete.user_attrs["measured_as"] == 0
    assert complete.user_attrs["worker"] == "late"
    assert complete.user_attrs["n_questions"] == 5


def test_a_late_result_completes_the_running_attempt_and_the_second_is_refused(
    study: optuna.Study,
) -> None:
    _taken(study, worker="late")
    _reclaim(study, 0)
    second = _taken(study, worker="other")
    assert _adopt(study, 0)
    assert not _end(study, second)
    assert not _adopt(study, second.number)
    assert _states(study) == ["FAIL", "COMPLETE"]


def test_a_late_result_of_a_given_up_candidate_is_added_if_there_is_room(
    study: optuna.Study,
) -> None:
    for number in range(MAX_RETRIES + 1):
        _taken(study, worker="late")
        _reclaim(study, number)
    assert _adopt(study, MAX_RETRIES, budget=1)
    assert _states(study) == ["FAIL"] * 3 + ["COMPLETE"]
    assert study.get_trials()[3].params == study.get_trials()[2].params
    assert not _adopt(study, MAX_RETRIES, budget=1)


def test_a_late_result_is_kept_where_every_later_attempt_failed(study: optuna.Study) -> None:
    _taken(study, worker="late")
    _reclaim(study, 0)
    again = _taken(study, worker="other")
    assert again.params == study.get_trials()[0].params
    _end(study, again, Ending(TrialState.FAIL, user_attrs={"failure": "out of memory"}))
    assert _adopt(study, 0)
    assert _states(study) == ["FAIL", "FAIL", "COMPLETE"]
    assert study.get_trials()[2].params == again.params
    assert not _adopt(study, 0)  # delivered twice, kept once


def test_silence_is_counted_by_the_databases_clock(study: optuna.Study) -> None:
    trial, ledger = _taken(study), Ledger(study)
    with _connect(study) as connection, connection.begin():
        first = ledger.silences(connection)[trial._trial_id]
    time.sleep(1.1)
    with _connect(study) as connection:
        with connection.begin():
            later = ledger.silences(connection)[trial._trial_id]
        with connection.begin():
            ledger.beat(connection, trial._trial_id)
        with connection.begin():
            after = ledger.silences(connection)[trial._trial_id]
    assert 0 <= first < later <= 60
    assert after < later


def test_a_running_trial_that_never_gave_a_sign_counts_from_its_start(
    study: optuna.Study,
) -> None:
    study.ask(SPACE)
    time.sleep(1.1)
    with _connect(study) as connection, connection.begin():
        (silence,) = Ledger(study).silences(connection).values()
    assert 0 < silence < 60


def _queue(study: optuna.Study, **params: object) -> None:
    study.enqueue_trial({name.replace("__", "."): value for name, value in params.items()})


def test_a_wish_of_the_user_is_measured_as_wished(study: optuna.Study) -> None:
    _queue(study, layer_000=0.25, layer_001=0.75)
    trial = _taken(study)
    assert trial.params == {"layer_000": 0.25, "layer_001": 0.75}
    (stored,) = study.get_trials()
    assert (stored.params, stored.distributions) == (trial.params, SPACE)
    assert stored.user_attrs == trial.user_attrs == {"phase": "search", "worker": "me"}


def test_what_a_wish_leaves_open_is_proposed(study: optuna.Study) -> None:
    _queue(study, layer_001=1)
    trial = _taken(study)
    assert trial.params["layer_001"] == 1
    assert 0 < trial.params["layer_000"] < 1
    assert study.get_trials()[0].params == trial.params


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("layer_00", 0.5, "did you mean 'layer_00"),
        ("layer_000", 1.5, "to 1.5, which must be a number from 0 to 1"),
        ("layer_000", "half", "to 'half', which must be a number"),
        ("layer_000", float("nan"), "to nan, which must be a number"),
    ],
)
def test_a_wish_outside_the_study_fails_with_the_reason_and_the_next_is_taken(
    study: optuna.Study, name: str, value: object, reason: str
) -> None:
    study.enqueue_trial({name: value})
    _queue(study, layer_000=0.1, layer_001=0.2)
    assert _taken(study).number == 1
    assert _states(study) == ["FAIL", "RUNNING"]
    assert reason in study.get_trials()[0].user_attrs["failure"]


def test_a_budget_below_what_is_queued_is_exact(study: optuna.Study) -> None:
    for level in (0.0, 0.25, 0.5, 0.75, 1.0):
        _queue(study, layer_000=level, layer_001=level)
    taken = [_taken(study, budget=3) for _ in range(3)]
    assert _claim(study, budget=3) is Outcome.WAIT
    for trial in taken:
        _end(study, trial)
    assert _claim(study, budget=3) is Outcome.DONE
    assert _states(study) == ["COMPLETE"] * 3 + ["WAITING"] * 2


def test_what_failed_for_a_cause_outside_itself_is_queued_again_and_not_counted(
    study: optuna.Study,
) -> None:
    first, second = _taken(study, budget=9), _taken(study, budget=9)
    with _connect(study) as connection:
        Claims(study, 9, SPACE).requeue(connection, first, "no memory", retry=True)
    _end(study, second, Ending(TrialState.FAIL, user_attrs={"failure": "ValueError"}))
    with _connect(study) as connection:
        Claims(study, 9, SPACE).forgive(connection, [first, second])
    trials = study.get_trials()
    assert _states(study) == ["FAIL", "FAIL", "WAITING", "WAITING"]
    assert [t.params for t in trials[2:]] == [t.params for t in trials[:2]]
    assert [t.system_attrs["retry_history"] for t in trials[2:]] == [[], []]


def test_a_lock_of_another_machine_says_nothing(
    study: optuna.Study, local: LocalWorkers, tmp_path: Path
) -> None:
    with local.register("other"):
        pass  # it is free now, as it seems from another machine
    place = tmp_path / "workers" / "other.place"
    assert local.is_dead("other")
    place.write_text('{"kernel": "another", "device": 1}')
    assert not local.is_dead("other")
    _taken(study, worker="other")
    with _connect(study) as connection:
        claims = Claims(study, 2, SPACE)
        assert dead_trials(claims, connection, local, grace_seconds=60) == []
        time.sleep(0.2)
        assert len(dead_trials(claims, connection, local, grace_seconds=0.1)) == 1


def test_locks_that_do_not_hold_between_processes_are_refused(
    local: LocalWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "free").touch()
    assert not excludes_others(tmp_path / "free")
    with local.register("me"):
        assert excludes_others(tmp_path / "workers" / "me.lock")
    # A file system without locks lets every process have them.
    monkeypatch.setattr("fcntl.flock", lambda *arguments: None)
    with pytest.raises(StudyError, match=r"do not hold in .*workers .*disk of this machine"):
        local.register("you")


def test_a_study_made_anew_gets_nothing_of_the_old_one(study: optuna.Study) -> None:
    trial = _taken(study)
    ledger = Ledger(study)
    optuna.delete_study(study_name=study.study_name, storage=study._storage)
    with ledger.engine.begin() as connection:
        with pytest.raises(StudyError, match="deleted or made anew"):
            ledger.end(connection, trial._trial_id, COMPLETE)
        with pytest.raises(StudyError, match="deleted or made anew"):
            ledger.add(connection, trial)
