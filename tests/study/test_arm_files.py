"""Files of one arm's model: numbers of experts mean what they mean in its study."""

import dataclasses
import html
import json
import re
from pathlib import Path

import pytest
import yaml
from optuna.trial import FrozenTrial

from command import invoke
from joint_study import write_joint_spec
from mergefront.errors import LayoutError
from mergefront.objectives import Measurement
from mergefront.objectives.merging import write_checkpoint
from mergefront.study import StudySpec
from mergefront.study.cli.results.pick import _print
from mergefront.study.results.choice import Wish, choose
from mergefront.study.results.export import merge_weights
from mergefront.study.results.front import front_report
from mergefront.study.results.predicted import PredictedModel
from mergefront.study.results.recommendations import as_trial, full_label, spread_out, which_model
from mergefront.study.results.report.advice import advice
from mergefront.study.results.sharing.manifest import weights_of
from mergefront.study.results.sharing.provenance import scores_of
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study

TEXTS = "".join(f"A line of text, number {k}: some more words.\n" for k in range(4))


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with a constraint that names the second of two experts."""
    folder = tmp_path_factory.mktemp("joint")
    sampler = {"preset": "random", "n_startup_trials": 9}
    path = write_joint_spec(folder, 4, study={"trials": 9}, sampler=sampler)
    content = yaml.safe_load(path.read_text())
    (folder / "texts.txt").write_text(TEXTS)
    content["evaluation"]["tasks"].append({"name": "texts", "texts": {"search": "texts.txt"}})
    content["constraints"] = ["kl/expert@2 <= 50"]
    path.write_text(yaml.safe_dump(content))
    run(load_inputs(path))
    return path


def _trial(joint: Path, experts: str) -> FrozenTrial:
    trials = load_study(StudySpec.from_yaml(joint)).trials
    measured = [t for t in trials if t.user_attrs["phase"] == "uniform"]
    return next(t for t in measured if t.params["experts"] == experts)


@pytest.mark.parametrize("experts", ["1", "2"])
def test_a_published_arm_is_measured_again_by_metrics_that_name_experts(
    joint: Path, experts: str, tmp_path: Path
) -> None:
    trial, out = _trial(joint, experts), tmp_path / "out"
    published = invoke("publish", joint, "--trial", trial.number, "--to", out)
    assert published.exit_code == 0, published.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["params"] == trial.params
    assert manifest["arm"] == f"{trial.params['operator']} of {experts}"
    assert manifest["spec"]["constraints"] == ["kl/expert@2 <= 50"]
    assert manifest["spec"]["models"]["experts"] == ["expert", "half"]
    again = invoke("reproduce", out, "--measure", "--spec", joint)
    assert again.exit_code == 0, again.stderr
    alone = invoke("reproduce", out)
    assert (alone.exit_code, "same bytes" in alone.stdout) == (0, True), alone.stderr


def test_a_manifest_whose_parameters_name_no_arm_is_refused(joint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert invoke("publish", joint, "--trial", 3, "--to", out).exit_code == 0
    whole = json.loads((out / "manifest.json").read_text())
    odd: list[tuple[dict[str, object], str]] = [
        ({"experts": "7"}, "must name"),
        ({"layer_000@1": "x"}, "must be a number"),
        ({"layer_999": 0.5}, "unknown"),
    ]
    for params, message in odd:
        changed = {**whole, "params": {**whole["params"], **params}}
        (out / "manifest.json").write_text(json.dumps(changed))
        refused = invoke("reproduce", out)
        assert (refused.exit_code, message in refused.stderr) == (1, True), refused.stderr


def test_card_and_recipe_keep_the_studys_numbers(joint: Path, tmp_path: Path) -> None:
    trial, out = _trial(joint, "2"), tmp_path / "out"
    told = invoke("export", joint, "--trial", trial.number, "--out", out)
    assert told.exit_code == 0, told.stderr
    recipe, card = (
        yaml.safe_load((out / "recipe.yaml").read_text()),
        (out / "README.md").read_text(),
    )
    assert list(recipe["parents"]) == ["base", "expert 2"]
    assert recipe["parents"]["expert 2"]["name"] == "half"
    arm = f"{trial.params['operator']} of 2"
    assert (recipe["arm"], recipe["study_parameters"]) == (arm, trial.params)
    assert "| expert 2 | half |" in card
    assert f"`{arm}`" in card
    assert "expert 1" not in card


def test_recommended_models_name_their_arm_and_their_kind_of_error(joint: Path) -> None:
    spec = StudySpec.from_yaml(joint)
    report = front_report(load_study(spec), spec)
    arms = [one.params["operator"] + " of " + one.params["experts"] for one in report.recommended]
    names = [which_model(one, report.denoised.trials) for one in report.recommended]
    for one, arm, name in zip(report.recommended, arms, names, strict=True):
        assert full_label(one).endswith(f", {arm}")
        if one.number is None:
            assert name == f"a merge nobody measured, {arm}"
    first = dataclasses.replace(report.recommended[0], number=0)
    assert which_model(first, report.denoised.trials) == "trial 0, base"  # of any arm
    shown = advice(report, (), str(joint))
    for one in spread_out(report.recommended):
        assert f"<td>{html.escape(which_model(one, report.denoised.trials))}</td>" in shown
    one = dataclasses.replace(report.recommended[0], number=None)
    measured = Measurement((0.5, 3.0), (0.1, 0.2), (), 0.0, 0.0)
    predicted = PredictedModel(one, measured).to_json(report)
    assert predicted["label"] == full_label(one)
    assert predicted["deviations"] == report.named(one.deviations)
    assert predicted["fresh_deviations"] == report.named(one.fresh_deviations)
    told = scores_of(load_study(spec), report, as_trial(one, report.denoised.trials))
    assert list(told) == ["predicted, errors on other questions"]
    errors = [error for _, error in told["predicted, errors on other questions"].values()]
    assert errors == one.fresh_deviations


def test_a_pick_names_the_arm_of_what_is_predicted_to_be_better(
    joint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = StudySpec.from_yaml(joint)
    choice = choose(front_report(load_study(spec), spec), Wish({}, {}))
    better = dataclasses.replace(choice.report.recommended[0], number=None)
    _print(dataclasses.replace(choice, unmeasured=better))
    shown = capsys.readouterr().out
    arm = f"{better.params['operator']} of {better.params['experts']}"
    assert f"not measured: a mixture, {arm}, with accuracy" in " ".join(shown.split())
    assert "on other questions" in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"operator": "slerp", "experts": "2>1", "uniform": 0.4},
            r"such as \[0.4, 0.4\], but 'uniform' has 0.4",
        ),
        (
            {"operator": "slerp", "experts": "1+2", "uniform": 0.4},
            "slerp merges 1, 2, 1>2, 2>1, but",
        ),
        (
            {"operator": "slrp", "experts": 1, "uniform": 0.4},
            r"'operator' must be one of linear, ties",
        ),
        (
            {"operator": "slerp", "experts": 7, "uniform": 0.4},
            "'experts' must be one of 1, 2, 1.2,",
        ),
    ],
)
def test_a_weight_file_is_refused_by_what_its_user_wrote(
    joint: Path, content: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(LayoutError, match=message) as caught:
        merge_weights(load_inputs(joint), content, tmp_path / "out")
    assert len(str(caught.value)) < 300


def test_lists_of_a_weight_file_are_in_the_order_of_its_experts(
    joint: Path, tmp_path: Path
) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "experts.md").read_text()
    content = json.loads(re.findall(r'`(\{"operator": .*?\})`', docs)[0])
    assert (content["experts"], content["uniform"]) == ("2>1", [0.4, 0.3])
    inputs = load_inputs(joint)
    merge_weights(inputs, content, tmp_path / "file")
    params: dict[str, object] = {"operator": "slerp", "experts": "2>1"}
    for group in inputs.plan.groups:
        params |= {f"{group}@2": 0.4, f"{group}@1": 0.3}
    own, groups = inputs.at(params)
    write_checkpoint(own.recipe, groups, tmp_path / "trial")
    assert weights_of(tmp_path / "file") == weights_of(tmp_path / "trial")
    recipe = yaml.safe_load((tmp_path / "file" / "recipe.yaml").read_text())
    assert list(recipe["parents"]) == ["base", "expert 2", "expert 1"]
    merge_weights(inputs, {"operator": "slerp", "experts": 1, "uniform": 0.4}, tmp_path / "one")


def test_the_spec_of_an_arm_alone_measures_nothing(joint: Path) -> None:
    own = load_inputs(joint).of_arm(_trial(joint, "2").params)
    assert (own.spec.objectives, own.spec.constraints) == ([], [])
    assert own.arm is not None
    assert own.arm.experts == (2,)
