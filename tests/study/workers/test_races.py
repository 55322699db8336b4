"""Studies in which clearly worse candidates are stopped."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from sqlalchemy.exc import OperationalError

from mergefront.errors import SpecError
from mergefront.objectives.evaluation import METRICS, ObjectiveMetric
from mergefront.objectives.evaluation.racing import Race, RaceSettings
from mergefront.samplers import SIPSampler, denoise
from mergefront.study import StudySpec, pareto_front
from mergefront.study.results.front import front_report
from mergefront.study.results.status import status_of
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from mergefront.study.workers.racing import race_against
from small_study import write_spec


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raced")
    path = write_spec(
        folder,
        n_questions=60,
        study={"trials": 14},
        sampler={"preset": "random", "n_startup_trials": 4},
        evaluation={"racing": {"blocks": [0.2], "margin": 0, "share": 0.5, "strong_share": 1.0}},
    )
    run(load_inputs(path))
    return path


def test_the_budget_counts_every_measurement(raced: Path) -> None:
    spec = StudySpec.from_yaml(raced)
    study = load_study(spec)
    states = [trial.state for trial in study.trials]
    assert len(states) == 14
    assert set(states) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert states[:4] == [TrialState.COMPLETE] * 4  # parents and uniform merges do not race
    status = status_of(study, spec)
    assert status.n_measured == 14
    assert status.hours_left == 0


def test_a_stopped_candidate_keeps_what_it_measured(raced: Path) -> None:
    study = load_study(StudySpec.from_yaml(raced))
    stopped = study.get_trials(states=(TrialState.PRUNED,))
    whole = study.get_trials(states=(TrialState.COMPLETE,))
    for trial in stopped:
        assert trial.user_attrs["n_questions"] == 12
        assert trial.user_attrs["standard_errors"][0] > 0.06
        assert trial.values is not None
        asked = [x is not None for x in trial.user_attrs["numbers"][0]]
        assert sum(asked) == trial.user_attrs["n_questions"]
        # Somebody was better in both on these very questions.
        numbers = np.array(trial.user_attrs["numbers"], dtype=float)[:, asked]
        others = [t for t in study.trials if t.number < trial.number]
        gains = [
            np.array(t.user_attrs["numbers"], dtype=float)[:, asked] - numbers for t in others
        ]
        means = [gain.mean(axis=1) for gain in gains]
        assert any(a > 0 and t < 0 for a, t in means)
    spent = sum(trial.user_attrs["generated_tokens"] for trial in stopped)
    assert spent < 0.5 * 60 * sum(trial.values[1] for trial in stopped)
    asked_of = [trial.user_attrs["n_questions"] for trial in whole]
    assert asked_of[:4] == [60] * 4
    assert set(asked_of) <= {30, 60}


def test_the_surrogate_uses_it_and_the_front_does_not_hold_it(raced: Path) -> None:
    spec = StudySpec.from_yaml(raced)
    study = load_study(spec)
    assert len(denoise(study).trials) == 14
    assert all(trial.state == TrialState.COMPLETE for trial in pareto_front(study))
    report = front_report(study, spec)
    assert report.hypervolume >= report.hypervolume_uniform - 1e-9


def test_a_resumed_study_races_on(raced: Path) -> None:
    spec = StudySpec.from_yaml(raced)
    before = len(load_study(spec).trials)
    run(load_inputs(raced))
    assert len(load_study(spec).trials) == before


def test_a_database_that_is_away_when_a_race_begins_fails_no_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(10**6))

    def away(*arguments: Any) -> Race | None:
        if next(calls) == 0:
            raise OperationalError("SELECT", {}, Exception("the server closed the connection"))
        return race_against(*arguments)

    monkeypatch.setattr("mergefront.study.workers.worker.race_against", away)
    path = write_spec(
        tmp_path,
        study={"trials": 4},
        sampler={"preset": "random", "n_startup_trials": 2},
        evaluation={"racing": {}},
    )
    run(load_inputs(path))
    states = [trial.state for trial in load_study(StudySpec.from_yaml(path)).trials]
    assert states == [TrialState.COMPLETE] * 4
    assert next(calls) == 3  # asked again after the outage


def test_pruned_trials_without_standard_errors_are_no_measurements() -> None:
    """What a pruner of somebody's own stopped has the value of some early step."""
    study = optuna.create_study(sampler=SIPSampler(seed=0))
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    for x, attributes in ((0.1, {}), (0.2, {"standard_errors": [0.1]})):
        trial = create_trial(
            state=TrialState.PRUNED,
            value=x,
            params={"x": x},
            distributions=space,
            user_attrs=attributes,
        )
        study.add_trial(trial)
    assert [trial.params["x"] for trial in denoise(study).trials] == [0.2]


@pytest.mark.parametrize(
    ("racing", "metric", "message"),
    [
        ({"blocks": [0.3, 0.25]}, "tokens", "blocks must increase"),
        ({"blocks": [0.5]}, "tokens", "stay below share"),
        ({"strong_share": 0.3}, "tokens", "strong_share must be at least share"),
        ({"blocks": [1.0]}, "tokens", "less than 1"),
        ({"margin": -1}, "tokens", "greater than or equal to 0"),
        ({}, "tokens_p90", "racing compares means"),
    ],
)
def test_what_cannot_be_raced_is_refused(
    tmp_path: Path, racing: dict[str, object], metric: str, message: str
) -> None:
    path = write_spec(tmp_path, evaluation={"racing": racing})
    path.write_text(path.read_text().replace("metric: tokens", f"metric: {metric}"))
    with pytest.raises(SpecError, match=message):
        StudySpec.from_yaml(path)


def test_who_breaks_a_constraint_stops_nobody() -> None:
    rng = np.random.default_rng(0)
    accuracy, tokens = (ObjectiveMetric(METRICS[name]) for name in ("accuracy", "tokens"))
    numbers = np.stack([np.ones(40), rng.normal(9.0, 1.0, 40)])
    worse = np.stack([np.zeros(40), rng.normal(20.0, 1.0, 40)])
    asked = SimpleNamespace(metrics=[accuracy, tokens], questions=[_scored()] * 40, clusters=[])
    for violation, stopped in ((0.5, False), (-0.1, True)):
        best = create_trial(
            values=[1.0, 9.0],
            params={"x": 1.0},
            distributions={"x": FloatDistribution(0, 1)},
            user_attrs={"phase": "parent", "numbers": numbers.tolist()},
            constraints={"kl/base <= 0.1": violation},
        )
        race = race_against([best], asked, RaceSettings(0.5, 1.0, (0.25,)))  # type: ignore[arg-type]
        assert race is not None and len(race.first) == 1
        block = race.blocks[0]
        assert race.goes_on(block, worse[:, block]) is not stopped


def _scored() -> SimpleNamespace:
    return SimpleNamespace(task="t")
