"""When a study ends, what it costs, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from command import invoke
from mergefront.errors import SpecError
from mergefront.samplers import GAIN
from mergefront.study import StudySpec
from mergefront.study.budget import UNLIMITED, Limits, expected_gain, quote
from mergefront.study.results.status import price_of
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import write_spec


def _trial(tokens: int, seconds: float = 0.0, gain: float | None = None) -> FrozenTrial:
    told = {"generated_tokens": tokens, "evaluate_seconds": seconds, "merge_seconds": 0.0}
    noted = {} if gain is None else {GAIN: gain}
    return create_trial(values=[1.0], user_attrs=told, system_attrs=noted)


RUNNING = create_trial(state=TrialState.RUNNING)


def test_no_candidate_is_begun_that_may_exceed_the_tokens() -> None:
    limits = Limits(tokens=100)
    assert limits.reason([]) is None
    assert limits.reason([_trial(30), _trial(30)]) is None  # 60 and 30 more
    assert limits.reason([_trial(30), _trial(30), RUNNING]) is not None
    assert limits.reason([_trial(40), _trial(30)]) is not None
    assert limits.reason([_trial(50), _trial(1)]) is not None


def test_gpu_hours_count_every_gpu() -> None:
    trials = [_trial(1, 1800.0)] * 2
    assert Limits(gpu_hours=1.5).reason(trials) is None
    assert Limits(gpu_hours=1.4).reason(trials) is not None
    assert Limits(gpu_hours=2.9, n_devices=2).reason(trials) is not None


def test_three_proposals_in_a_row_that_promise_too_little_end_a_study() -> None:
    limits = Limits(gain=0.005)
    low, high = _trial(1, gain=0.004), _trial(1, gain=0.006)
    assert limits.reason([low, low]) is None
    assert limits.reason([low, high, low, low]) is None
    assert "0.4 %" in (limits.reason([high, low, low, low, _trial(1)]) or "")
    assert Limits().reason([low] * 9) is None


def test_a_quote_has_an_interval() -> None:
    costs = [10.0, 12.0, 14.0, 12.0]
    amount = quote([_trial(1)] * 4, 8, costs)
    assert amount is not None
    assert (amount.spent, amount.expected) == (48.0, 144.0)
    low, high = amount.interval
    assert high - 144 == pytest.approx(144 - low) == pytest.approx(1.96 * (8 / 3 * 24) ** 0.5)
    assert amount.times(2.0).expected == 288.0
    assert quote([_trial(1)], 8, [10.0]) is None
    assert quote([_trial(1)] * 4, 0, costs) == quote([_trial(1)] * 4, 0, costs)


def test_with_racing_what_is_to_come_costs_less(tmp_path: Path) -> None:
    path = write_spec(tmp_path, evaluation={"racing": {"share": 0.25}})
    spec = StudySpec.from_yaml(path)
    first = [_trial(1000, 3600.0), _trial(1200, 3600.0)]
    for trial, phase in zip(first, ("parent", "uniform"), strict=True):
        trial.user_attrs["phase"] = phase
    searched = [_trial(260, 900.0), _trial(290, 900.0)]
    price = price_of([*first, *searched], spec, n_left=10)
    # To come: 10 times the mean of 250, 300, 260 and 290.
    assert price["tokens"].expected == pytest.approx(2750 + 10 * 275)
    assert price["gpu_hours"].expected == pytest.approx(2.5 + 10 * 0.25)
    # Of the ten, one is a uniform merge and asked everything, as much as four others.
    waiting = create_trial(state=TrialState.WAITING, user_attrs={"phase": "uniform"})
    price = price_of([*first, waiting, *searched], spec, n_left=10)
    assert price["tokens"].expected == pytest.approx(2750 + 13 * 275)


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ({"trials": None}, "trials"),
        ({"budget": {}}, "exactly one"),
        ({"budget": {"tokens": 9, "trials": 9}}, "exactly one"),
        ({"budget": {"trials": 12}}, "keep one"),
        ({"budget": {"tokens": 0}}, "tokens"),
        ({"stop": {"gain": "x"}}, "gain"),
        ({"stop": {"gain": 2}}, "gain"),
        ({"stop": {}}, "gain"),
    ],
)
def test_budgets_that_make_no_sense(tmp_path: Path, study: dict[str, Any], message: str) -> None:
    path = write_spec(tmp_path, study=study)
    with pytest.raises(SpecError, match=message):
        StudySpec.from_yaml(path)


def test_budgets_are_read(tmp_path: Path) -> None:
    study = {"trials": None, "budget": {"gpu_hours": 1.5}, "stop": {"gain": "0.5 %"}}
    spec = StudySpec.from_yaml(write_spec(tmp_path, study=study, cost={"per_hour": 2.5}))
    assert spec.study.trials == UNLIMITED
    assert spec.ends == Limits(None, 1.5, 0.005)
    again = spec.with_overrides(trials=12)
    assert (again.study.trials, again.ends) == (12, spec.ends)
    counted = {"trials": None, "budget": {"trials": 12}}
    spec = StudySpec.from_yaml(write_spec(tmp_path, study=counted))
    assert spec.study.trials == 12
    assert spec.with_overrides(trials=14).study.trials == 14


@pytest.fixture(scope="module")
def capped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_spec(
        tmp_path_factory.mktemp("capped"),
        n_questions=8,
        study={"trials": None, "budget": {"tokens": 900}},
        cost={"per_hour": 2.0},
    )
    run(load_inputs(path))
    return path


def test_a_study_keeps_to_its_tokens(capped: Path) -> None:
    trials = load_study(StudySpec.from_yaml(capped)).trials
    used = [trial.user_attrs["generated_tokens"] for trial in trials if trial.values]
    assert sum(used) <= 900
    assert sum(used) + max(used) > 900
    before = len(trials)
    run(load_inputs(capped))  # nothing more
    assert len(load_study(StudySpec.from_yaml(capped)).trials) == before


def test_status_and_dry_run_quote_the_price(capped: Path) -> None:
    content = json.loads(invoke("status", capped, "--format", "json").stdout)
    price = content["price"]
    assert set(price) == {"tokens", "gpu_hours", "money"}
    assert price["tokens"]["spent"] <= 900
    assert price["money"]["spent"] == pytest.approx(2 * price["gpu_hours"]["spent"])
    assert "budget of 900 tokens" in content["ended"]
    assert "GPU hours" in invoke("run", capped, "--dry-run").stdout


def test_proposals_say_what_they_expect_to_gain(finished: Path) -> None:
    trials = load_study(StudySpec.from_yaml(finished)).trials
    gains = [expected_gain(trial) for trial in trials]
    assert gains[:8] == [None] * 8
    assert all(gain is not None and -0.01 < gain < 1 for gain in gains[8:])


def test_only_the_knowledge_gradient_knows_when_to_stop(tmp_path: Path) -> None:
    path = write_spec(tmp_path, study={"stop": {"gain": 0.01}}, sampler={"preset": "random"})
    with pytest.raises(SpecError, match=r"by the knowledge gradient .* the preset is random"):
        StudySpec.from_yaml(path)
