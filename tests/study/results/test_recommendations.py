"""What to take: in the front's output, on fresh questions, as a checkpoint; rotating questions."""

import json
from collections import Counter
from pathlib import Path

import optuna
import pytest
import torch
import yaml
from optuna.trial import FrozenTrial

from command import invoke
from mergefront.errors import SpecError
from mergefront.samplers import denoise
from mergefront.study import StudySpec, recommend
from mergefront.study.results.front import front_report
from mergefront.study.results.recommendations import parse_preference, spread_out
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import write_spec


def test_the_front_names_what_to_take(finished: Path) -> None:
    content = json.loads(invoke("front", finished, "--format", "json").stdout)
    assert len(content["recommended"]) == 19
    for one in content["recommended"]:
        assert one.keys() >= {"preference", "params", "values", "deviations"}
        assert sum(one["preference"]) == pytest.approx(1.0)
        assert one["values"].keys() == one["deviations"].keys() == {"accuracy", "tokens"}
        for name, deviation in one["deviations"].items():  # a few questions are a sample
            assert one["fresh_deviations"][name] > deviation > 0
        assert all(0.0 <= weight <= 1.0 for weight in one["params"].values())
    study = load_study(StudySpec.from_yaml(finished))
    assert [one.params for one in recommend(study)] == [
        one["params"] for one in content["recommended"]
    ]
    printed = invoke("front", finished).stdout
    assert "predicted, not measured" in printed


def test_the_knee_is_the_best_expected_utility(finished: Path) -> None:
    spec = StudySpec.from_yaml(finished)
    report = front_report(load_study(spec), spec)
    (even,) = report.recommend([0.5])
    if even.number is not None:
        assert report.knee == even.number
    assert report.knee in [trial.number for trial in report.trials]


def test_a_few_recommendations_that_differ_are_shown(finished: Path) -> None:
    spec = StudySpec.from_yaml(finished)
    shown = spread_out(front_report(load_study(spec), spec).recommended)
    assert 1 <= len(shown) <= 5
    assert len({json.dumps(one.params) for one in shown}) == len(shown)


def test_validation_says_whether_recommended_models_are_what_was_predicted(
    finished: Path,
) -> None:
    content = json.loads(invoke("validate", finished, "--format", "json").stdout)
    new = content["recommended"]
    told = content["as_predicted"]
    assert (told is None) == (not new)
    for model in new:
        for name, off in model["off"].items():
            value, predicted = model["values"][name], model["predicted"][name]
            assert (off > 0) == (value > predicted)
    if told is not None:
        assert told["values"] == 2 * len(new)
        scores = [abs(off) for model in new for off in model["off"].values()]
        assert told["within"] == sum(score <= 1.96 for score in scores)
    assert all(isinstance(model["number"], int) for model in content["models"])


def test_export_takes_a_preference_instead_of_a_trial(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    assert invoke("export", finished, "--preference", "0.5", "--out", out).exit_code == 0
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    study = load_study(StudySpec.from_yaml(finished))
    (one,) = recommend(study, [0.5])
    told = {name: weight for name, weight in recipe["weights"].items() if name in one.params}
    assert told == pytest.approx({name: one.params[name] for name in told}, abs=1e-6)
    assert list(out.glob("*.safetensors"))


@pytest.mark.parametrize(
    "options", [[], ["--trial", 3, "--preference", "0.5"], ["--preference", "x"]]
)
def test_export_wants_one_thing(finished: Path, tmp_path: Path, options: list[object]) -> None:
    result = invoke("export", finished, "--out", tmp_path / "merged", *options)
    assert result.exit_code == 1
    assert "--preference" in result.stderr
    assert not (tmp_path / "merged").exists()


def test_preferences_of_the_command_line() -> None:
    assert parse_preference("0.25", 2) == [0.25, 0.75]
    assert parse_preference("1,2,1", 3) == [0.25, 0.5, 0.25]
    assert parse_preference("1e308,1e308", 2) == [0.5, 0.5]
    assert parse_preference("1e308,5e307,5e307", 3) == [0.5, 0.25, 0.25]
    for wrong, m in (
        ("2", 2),
        ("0.5", 3),
        ("a", 2),
        ("1,-1", 2),
        ("", 2),
        ("1e300,1e-300", 2),
    ):
        with pytest.raises(SpecError, match="--preference"):
            parse_preference(wrong, m)


@pytest.fixture(scope="module")
def rotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rotated")
    changes = {"study": {"trials": 9}, "evaluation": {"rotate": True}}
    path = write_spec(folder, n_questions=32, **changes)
    run(load_inputs(path))
    return path


def _asked(trial: FrozenTrial) -> list[str]:
    questions: list[str] = trial.user_attrs["answers"]["questions"]
    return questions


def test_candidates_answer_their_share_and_all_questions_are_asked_equally_often(
    rotated: Path,
) -> None:
    trials = load_study(StudySpec.from_yaml(rotated)).trials
    assert [len(_asked(trial)) for trial in trials] == [8] * 9
    assert [trial.user_attrs["n_questions"] for trial in trials] == [8] * 9
    counts = Counter(question for trial in trials for question in _asked(trial))
    assert len(counts) == 32
    assert set(counts.values()) <= {2, 3}
    for trial in trials:  # values stay what was measured
        means = [sum(column) / 8 for column in trial.user_attrs["answers"]["values"]]
        assert trial.values == pytest.approx(means)


def test_the_front_of_a_rotating_study_is_equated(rotated: Path) -> None:
    spec = StudySpec.from_yaml(rotated)
    study = load_study(spec)
    raw = optuna.create_study(directions=study.directions)
    for trial in study.trials:
        trial.user_attrs.pop("answers")
        raw.add_trial(trial)
    assert not torch.allclose(denoise(study).means, denoise(raw).means)
    content = json.loads(invoke("front", rotated, "--format", "json").stdout)
    assert content["trials"]
    assert "8 a candidate, dealt from 32" in invoke("run", rotated, "--dry-run").stdout


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rotate": 33}, "has 32"),
        ({"rotate": 3}, "rotate"),
        ({"rotate": True, "racing": {}}, "keep one of them"),
    ],
)
def test_a_pool_that_does_not_fit_is_refused(
    tmp_path: Path, keys: dict[str, object], message: str
) -> None:
    path = write_spec(tmp_path, n_questions=32, evaluation=keys)
    result = invoke("run", path)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "study.db").exists()
