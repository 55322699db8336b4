"""`mergefront pick`: one model of the front, why, and which others are as good."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from scipy.stats import norm

from command import invoke
from mergefront import StudySpec
from mergefront.errors import EngineError, SpecError, StudyError
from mergefront.objectives import MergeObjective
from mergefront.samplers import Adviser
from mergefront.study.results.choice import Wish, choose
from mergefront.study.results.front import FrontReport, front_report
from mergefront.study.run import run
from mergefront.study.seeding import BUDGET
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import write_spec


@pytest.fixture
def report(finished: Path) -> FrontReport:
    """A front of three clear models, and one that cannot be told from the second."""
    spec = StudySpec.from_yaml(finished)
    report = replace(front_report(load_study(spec), spec), knee=None)
    report.reference_point[:] = [0.5, 30.0]
    values = [(0.9, 25.0, 0.01), (0.8, 10.0, 0.01), (0.795, 9.9, 0.03), (0.6, 2.0, 0.01)]
    pattern = report.trials[0]
    del report.trials[:]
    for number, (accuracy, tokens, error) in enumerate(values):
        trial = copy.copy(pattern)
        trial.number = number
        trial.user_attrs = {
            "denoised": [accuracy, tokens],
            "denoised_errors": [error, 10 * error],
            "phase": "search",
        }
        report.trials.append(trial)
    return report


@pytest.mark.parametrize(
    ("limits", "weights", "number"),
    [
        # By believed values 2 is best, min(.295/.4, 20.1/28) against min(.3/.4, 20/28); but its
        # accuracy is known to .03 only, and where it is less, that binds.
        ({}, {}, 1),
        ({"tokens": 12}, {}, 1),
        ({"tokens": 5}, {}, 3),
        ({"accuracy": 0.85}, {}, 0),
        ({"accuracy": 0.55, "tokens": 26}, {}, 1),
        ({}, {"accuracy": 50}, 0),
        ({}, {"tokens": 50}, 3),
    ],
)
def test_the_wish_decides(
    report: FrontReport, limits: dict[str, float], weights: dict[str, float], number: int
) -> None:
    assert choose(report, Wish(limits, weights)).best.trial.number == number


def test_without_a_wish_it_is_the_knee_that_the_front_names(report: FrontReport) -> None:
    knee = replace(report, knee=3)
    assert choose(knee, Wish({}, {})).best.trial.number == 3
    assert choose(knee, Wish({}, {"tokens": 1.0})).best.trial.number == 1


def test_expected_utility_is_the_expected_smaller_gain(report: FrontReport) -> None:
    """Clark (1961) gives the expected minimum of two normals in closed form."""
    chosen = choose(report, Wish({}, {"accuracy": 1.0, "tokens": 1.0}))
    a, b = (0.8 - 0.5) / 0.4, (30.0 - 10.0) / 28.0  # trial 1, spans of the best of each
    spread = math.hypot(0.01 / 0.4, 0.1 / 28.0)
    z = (b - a) / spread
    expected = a * norm.cdf(z) + b * norm.cdf(-z) - spread * norm.pdf(z)
    assert chosen.best.trial.number == 1
    assert chosen.best.utility == pytest.approx(expected, abs=1e-4)


def test_what_cannot_be_told_apart_is_named(report: FrontReport) -> None:
    choice = choose(report, Wish({"tokens": 12}, {}))
    assert [chosen.trial.number for chosen in choice.tied] == [2]
    low, high = choice.best.interval
    assert low < choice.best.utility < high
    assert choice.best.keeps > 0.99
    assert choice.why() == "the best accuracy with tokens at most 12"
    assert choose(report, Wish({}, {"accuracy": 50})).tied == []


def test_a_limit_that_nobody_keeps_names_who_comes_nearest(report: FrontReport) -> None:
    with pytest.raises(StudyError, match=r"tokens at most 1 \(best: 2.00 ± 0.10, trial 3\)"):
        choose(report, Wish({"tokens": 1}, {}))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish({"token": 1}, {}), "did you mean 'tokens'"),
        (Wish({}, {"accuracy": 0}), "above 0"),
        (Wish({"tokens": 9}, {"tokens": 2}), "a limit and a weight"),
    ],
)
def test_wishes_that_make_no_sense(report: FrontReport, wish: Wish, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        choose(report, wish)


def test_the_command(finished: Path) -> None:
    twice = invoke("pick", finished, "--tokens", 5, "--limit", "tokens=20")
    assert (twice.exit_code, "--tokens and --limit tokens=X" in twice.stderr) == (1, True)
    shown = invoke("pick", finished, "--weight", "accuracy=2", "--format", "json")
    content = json.loads(shown.stdout)
    assert content["weights"] == {"accuracy": 2.0}
    number = content["pick"]["number"]
    low, high = content["pick"]["interval"]
    assert low <= content["pick"]["utility"] <= high
    table = invoke("pick", finished, "--weight", "accuracy=2")
    assert f"trial {number} is the best balance of accuracy (weight 2) and tokens" in table.stdout
    assert f"mergefront export {finished} --trial {number} --out merged" in table.stderr
    spec = StudySpec.from_yaml(finished)
    (advised,) = front_report(load_study(spec), spec).recommend([[2 / 3, 1 / 3]])
    assert (content["unmeasured"] is None) is (advised.number is not None)
    assert ("Predicted to be better" in table.stdout) is (advised.number is None)
    wrong = invoke("pick", finished, "--weight", "accuracy")
    assert (wrong.exit_code, "must be METRIC=NUMBER" in wrong.stderr) == (1, True)


def test_a_recommended_model_is_measured_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(tmp_path, study={"trials": 6}, sampler={"preset": "random"})
    run(load_inputs(path))
    monkeypatch.setattr("mergefront.samplers.adviser._CLEAR", -1e9)  # always a mixture
    shown = invoke("pick", path)
    assert "Predicted to be better, not measured" in shown.stdout
    assert f"export {path} --preference 0.5,0.5 --out merged" in shown.stderr
    assert invoke("pick", path, "--recommend").exit_code == 0
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 7
    assert trials[-1].user_attrs["label"] == "recommended 0.50"
    assert "denoised" not in trials[-1].user_attrs


def _spent(folder: Path) -> Path:
    """A study whose budget of tokens is used up, and in which a user's candidate waits."""
    budget = {"trials": None, "budget": {"tokens": 1500}}
    path = write_spec(folder, study=budget, sampler={"preset": "random"})
    run(load_inputs(path))
    study = load_study(StudySpec.from_yaml(path))
    study.enqueue_trial({"layer_000": 0.4})
    return path


def test_the_recommended_model_alone_is_measured_whatever_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _spent(tmp_path)
    study = load_study(StudySpec.from_yaml(path))
    before, asked = study.get_trials(), study.user_attrs[BUDGET]
    monkeypatch.setattr("mergefront.samplers.adviser._CLEAR", -1e9)
    assert invoke("pick", path, "--recommend").exit_code == 0
    study = load_study(StudySpec.from_yaml(path))
    *kept, measured = study.get_trials()
    assert [trial.state for trial in kept] == [trial.state for trial in before]
    assert (measured.state.name, measured.user_attrs["phase"]) == ("COMPLETE", "recommended")
    assert study.user_attrs[BUDGET] == asked


def test_a_recommended_model_that_is_not_measured_leaves_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _spent(tmp_path)
    before = load_study(StudySpec.from_yaml(path)).get_trials()
    monkeypatch.setattr("mergefront.samplers.adviser._CLEAR", -1e9)
    for error, told in (
        (RuntimeError("no such layer"), "was not measured: RuntimeError: no such layer"),
        (EngineError("the engine stopped"), "could not be measured; the last one: the engine"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(MergeObjective, "measure", Mock(side_effect=error))
            failed = invoke("pick", path, "--recommend")
        assert (failed.exit_code, told in failed.stderr) == (1, True), failed.stderr
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    assert {trial.state.name for trial in trials[len(before) :]} == {"FAIL"}
    assert invoke("pick", path, "--recommend").exit_code == 0
    assert load_study(StudySpec.from_yaml(path)).get_trials()[-1].state.name == "COMPLETE"


def test_what_was_measured_is_not_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(tmp_path, study={"trials": 5}, sampler={"preset": "random"})
    run(load_inputs(path))
    study = load_study(StudySpec.from_yaml(path))
    number = study.get_trials()[-1].number  # also its row, for all are measured
    monkeypatch.setattr("mergefront.samplers.adviser._CLEAR", -1e9)
    monkeypatch.setattr(
        Adviser, "_climb", lambda self, weights, starts: self.model.observations.X[[number]]
    )
    shown = invoke("pick", path, "--recommend")
    assert shown.exit_code == 0
    assert f"Trial {number} is this model: it was measured already." in shown.stderr
    assert len(load_study(StudySpec.from_yaml(path)).get_trials()) == 5


def test_nothing_is_queued_that_cannot_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(tmp_path, study={"trials": 5}, sampler={"preset": "random"})
    run(load_inputs(path))
    monkeypatch.setattr("mergefront.samplers.adviser._CLEAR", -1e9)
    path.write_text(path.read_text().replace("float32", "bfloat16"))  # another study's settings
    assert invoke("pick", path, "--recommend").exit_code == 1
    assert len(load_study(StudySpec.from_yaml(path)).get_trials()) == 5
