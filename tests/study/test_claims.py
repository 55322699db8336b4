"""Budget, death and retries, on a real storage."""

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState

from mergefront.study.claims import MAX_RETRIES, Outcome, Workers, claim, reclaim

SPACE: dict[str, BaseDistribution] = {
    "layer_000": FloatDistribution(0, 1),
    "layer_001": FloatDistribution(0, 1),
}


@pytest.fixture
def study(tmp_path: Path) -> Iterator[optuna.Study]:
    url = f"sqlite:///{tmp_path}/study.db"
    yield optuna.create_study(directions=["maximize", "minimize"], storage=url)


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path / "workers")


def _claim(study: optuna.Study, worker: str = "me", budget: int = 2) -> optuna.Trial | Outcome:
    return claim(study, budget, SPACE, {"worker": worker})


def _states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def test_the_budget_counts_what_is_in_flight(study: optuna.Study) -> None:
    first, second = _claim(study), _claim(study)
    assert isinstance(first, optuna.Trial)
    assert isinstance(second, optuna.Trial)
    assert _claim(study) is Outcome.WAIT
    study.tell(first, [1.0, 1.0])
    assert _claim(study) is Outcome.WAIT
    study.tell(second, state=TrialState.FAIL)
    third = _claim(study)  # a failure does not use up the budget
    assert isinstance(third, optuna.Trial)
    study.tell(third, [1.0, 1.0])
    assert _claim(study) is Outcome.DONE


def test_a_claim_is_marked_and_has_all_its_parameters(study: optuna.Study) -> None:
    trial = _claim(study)
    assert isinstance(trial, optuna.Trial)
    assert trial.user_attrs == {"worker": "me", "phase": "search"}
    assert trial.params.keys() == SPACE.keys()


def test_queued_trials_come_first_and_keep_their_phase(study: optuna.Study) -> None:
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.WAITING,
            params={"layer_000": 0.0, "layer_001": 0.5},
            distributions=SPACE,
            user_attrs={"phase": "uniform"},
        )
    )
    trial = _claim(study)
    assert isinstance(trial, optuna.Trial)
    assert trial.params == {"layer_000": 0.0, "layer_001": 0.5}
    assert trial.user_attrs["phase"] == "uniform"


def _hold(directory: Path, ready: "multiprocessing.Queue[bool]") -> None:
    lock = Workers(directory).register("other")
    ready.put(lock.is_locked)
    time.sleep(600)


def test_a_killed_process_is_dead_and_a_running_one_alive(
    tmp_path: Path, workers: Workers
) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Queue()
    process = context.Process(target=_hold, args=(tmp_path / "workers", ready))
    process.start()
    assert ready.get(timeout=120)
    assert workers.is_alive("other")
    assert not workers.is_alive("never seen")
    process.kill()
    process.join()
    assert not workers.is_alive("other")


def test_what_the_dead_held_is_queued_again_as_a_whole(
    study: optuna.Study, workers: Workers
) -> None:
    dead = _claim(study, "dead")
    assert isinstance(dead, optuna.Trial)
    dead.set_constraint("truncation", 0.5)
    with workers.register("me"):
        alive = _claim(study, "me")
        assert reclaim(study, workers) == [0]
    assert isinstance(alive, optuna.Trial)
    assert _states(study) == [TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING]
    failed, _, clone = study.get_trials()
    assert failed.user_attrs["failure"] == "its worker died"
    assert clone.params == failed.params
    assert clone.constraints == {}
    assert clone.system_attrs["failed_trial"] == 0
    assert clone.system_attrs["retry_history"] == [0]
    assert "worker" not in clone.user_attrs


def test_a_candidate_cut_off_while_it_was_proposed_is_not_mixed_with_another(
    study: optuna.Study, workers: Workers
) -> None:
    complete = _claim(study)
    assert isinstance(complete, optuna.Trial)
    study.tell(complete, [1.0, 1.0])
    study.ask({"layer_000": SPACE["layer_000"]})  # died before layer_001 and its own name
    assert reclaim(study, workers) == [1]
    assert _states(study) == [TrialState.COMPLETE, TrialState.FAIL]
    assert study.get_trials()[1].user_attrs["failure"].endswith("while it was proposed")


def test_a_point_that_kills_every_worker_ends(study: optuna.Study, workers: Workers) -> None:
    for _ in range(MAX_RETRIES + 1):
        assert isinstance(_claim(study, "dead"), optuna.Trial)
        reclaim(study, workers)
    trials = study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 3
    assert trials[-1].system_attrs["failed_trial"] == 0
    assert trials[-1].system_attrs["retry_history"] == [0, 1]
    assert trials[-1].user_attrs["failure"] == "its worker died 3 times"


def test_a_process_killed_while_it_queues_again_neither_loses_nor_doubles(
    study: optuna.Study, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(_claim(study, "dead"), optuna.Trial)

    def killed(self: optuna.Study, *arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(optuna.Study, "tell", killed)
        reclaim(study, workers)
    assert _states(study) == [TrialState.RUNNING, TrialState.WAITING]
    assert reclaim(study, workers) == [0]
    assert _states(study) == [TrialState.FAIL, TrialState.WAITING]
