"""Files of one arm's model: numbers of experts mean what they mean in its study."""

import json
from pathlib import Path

import pytest
import yaml
from optuna.trial import FrozenTrial

from command import invoke
from joint_study import write_joint_spec
from mergefront.study import StudySpec
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


def test_the_spec_of_an_arm_alone_measures_nothing(joint: Path) -> None:
    own = load_inputs(joint).of_arm(_trial(joint, "2").params)
    assert (own.spec.objectives, own.spec.constraints) == ([], [])
    assert own.arm is not None
    assert own.arm.experts == (2,)
