"""Simulated workers and synchronous batches."""

from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from mergefront.study.comparison.simulation import SPAN, Evaluated, Simulation, usage
from mergefront.study.workers.batches import BATCH, batch_view

SPACE = {"x": FloatDistribution(0.0, 1.0)}


class _Seen(optuna.samplers.RandomSampler):
    """Notes what each proposal knows."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.views: list[list[str]] = []

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: Any) -> Any:
        trials = study.get_trials(deepcopy=False)
        self.views.append([t.state.name[0] for t in trials])
        return super().sample_relative(study, trial, search_space)


def _simulation(n_workers: int, batch: int | None, **options: Any) -> tuple[Simulation, _Seen]:
    sampler = _Seen()
    study = optuna.create_study(directions=["maximize"], sampler=sampler)

    def evaluate(trial: FrozenTrial) -> Evaluated:
        return Evaluated([trial.params["x"]], {}, [10.0, 40.0, 20.0, 20.0][trial.number % 4])

    return Simulation(study, SPACE, evaluate, n_workers, batch, **options), sampler


def test_values_are_known_after_their_seconds_only() -> None:
    simulation, sampler = _simulation(2, None)
    trials = simulation.run(5)
    # Worker 1: 0-10, 10-30, 30-50; worker 2: 0-40, 40-50.
    assert [trial.user_attrs[SPAN] for trial in trials] == [
        (0.0, 10.0), (0.0, 40.0), (10.0, 30.0), (30.0, 50.0), (40.0, 50.0)
    ]  # fmt: skip
    assert sampler.views == [[], ["R"], ["C", "R"], ["C", "R", "C"], ["C", "C", "C", "R"]]
    used = usage(trials, 2)
    assert used.seconds == 50.0
    assert used.utilisation == 1.0
    assert used.overall == 1.0


def test_a_batch_waits_for_its_slowest_and_knows_nothing_of_its_own() -> None:
    simulation, sampler = _simulation(2, 2)
    trials = simulation.run(4)
    assert [trial.user_attrs[SPAN] for trial in trials] == [
        (0.0, 10.0), (0.0, 40.0), (40.0, 60.0), (40.0, 60.0)
    ]  # fmt: skip
    assert [trial.user_attrs[BATCH] for trial in trials] == [0, 0, 1, 1]
    assert sampler.views == [[], ["R"], ["C", "C"], ["C", "C", "R"]]
    assert usage(trials, 2).utilisation == pytest.approx(50 / 80)


def test_a_batch_larger_than_the_workers_is_one_batch() -> None:
    simulation, sampler = _simulation(1, 3)
    simulation.run(4)
    assert sampler.views == [[], ["R"], ["R", "R"], ["C", "C", "C"]]


def test_proposals_take_turns() -> None:
    simulation, _ = _simulation(2, None, suggest_seconds=3.0)
    trials = simulation.run(3)
    assert [trial.user_attrs[SPAN][0] for trial in trials] == [3.0, 6.0, 16.0]


def test_an_interrupted_simulation_goes_on_the_same() -> None:
    whole, _ = _simulation(3, None)
    parts, _ = _simulation(3, None)
    spans = [trial.user_attrs[SPAN] for trial in whole.run(7)]
    parts.run(4)
    again = Simulation(parts.study, SPACE, parts.evaluate, 3)
    assert [tuple(trial.user_attrs[SPAN]) for trial in again.run(7)] == spans


def test_first_trials_come_first() -> None:
    queue = [
        create_trial(state=TrialState.WAITING, params={"x": x}, distributions=dict(SPACE))
        for x in (0.25, 0.75)
    ]
    simulation, sampler = _simulation(2, 2, queue=queue)
    trials = simulation.run(3)
    assert [trial.params["x"] for trial in trials[:2]] == [0.25, 0.75]
    assert trials[2].user_attrs[SPAN][0] == 40.0  # the batch waits for them
    assert sampler.views == [["C", "C"]]


def test_a_retried_trial_holds_the_next_batch_back() -> None:
    states = [TrialState.FAIL, TrialState.COMPLETE, TrialState.WAITING]
    trials = []
    for number, state in enumerate(states):
        trial = create_trial(
            state=state,
            value=1.0 if state == TrialState.COMPLETE else None,
            params={"x": 0.5},
            distributions=dict(SPACE),
            user_attrs={BATCH: 0} if number < 2 else {},
        )
        trial.number = number
        trials.append(trial)
    assert batch_view(trials, 2) is None
    trials[2].state, trials[2].values = TrialState.COMPLETE, [1.0]
    assert batch_view(trials, 2) == (1, trials)
