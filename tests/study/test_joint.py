"""One study over operators, experts and weights: resumed, reported, exported."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from optuna.trial import TrialState, create_trial
from transformers import AutoModelForCausalLM

from command import invoke
from joint_study import write_joint_spec
from mergefront.errors import LayoutError
from mergefront.objectives.merging.settings import arm_name
from mergefront.study import StudySpec
from mergefront.study.first_trials import same_models, search_space
from mergefront.study.results.export import export_trial, merge_weights, trial_of
from mergefront.study.results.front import front_report
from mergefront.study.run import make_objective, run
from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import write_spec

TRIALS = 16


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study, whose worker was killed on the way."""
    path = write_joint_spec(tmp_path_factory.mktemp("joint"))
    worker = subprocess.Popen([sys.executable, "-m", "mergefront", "run", str(path)])
    spec = StudySpec.from_yaml(path)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and _n_complete(spec) < TRIALS - 10:
        time.sleep(0.05)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert _n_complete(spec) < TRIALS
    run(load_inputs(path))
    return path


def _n_complete(spec: StudySpec) -> int:
    try:
        trials = load_study(spec).get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    except Exception:  # not there yet
        return 0
    return len(trials)


def test_a_killed_worker_costs_nothing_and_the_budget_is_exact(joint: Path) -> None:
    study, plan = load_study(StudySpec.from_yaml(joint)), load_inputs(joint).plan

    complete = [t for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(complete) == TRIALS
    labels = [t.user_attrs.get("label") for t in complete[:4]]
    assert labels == ["base", "expert 1", "expert 2", "uniform 0.50, linear of 1"]
    for trial in complete:
        arm = plan.settings.arm_of(trial.params)
        if trial.user_attrs["phase"] == "search":
            assert {**trial.params, **plan.arm_params(arm)} == trial.params
    assert len({plan.settings.arm_of(t.params) for t in complete}) >= 6


def test_the_front_and_the_validation_name_operators_and_experts(joint: Path) -> None:
    shown = invoke("front", joint, "--wide")
    assert shown.exit_code == 0, shown.stderr
    study = load_study(StudySpec.from_yaml(joint))
    report = front_report(study, StudySpec.from_yaml(joint))
    searched = [t for t in report.trials if t.user_attrs["phase"] == "search"]
    assert all(f"search, {arm_name(trial.params)}" in shown.stdout for trial in searched)
    counts = report.to_json()["arms"]
    assert sum(counts.values()) == TRIALS - 3
    assert f"{next(iter(counts))} {max(counts.values())}, " in shown.stdout
    checked = invoke("validate", joint)
    assert checked.exit_code == 0, checked.stderr
    for trial in searched:
        assert f"trial {trial.number}, {arm_name(trial.params)}" in checked.stdout
    assert invoke("report", joint, "--out", joint.parent / "report").exit_code == 0
    page = (joint.parent / "report" / "report.html").read_text()
    for told in (shown.stdout, checked.stdout, page):
        assert "uniform merges were measured, which is no curve" in told
    assert invoke("pick", joint).exit_code == 0


@pytest.mark.parametrize("operator", ["linear", "ties(density=0.5)", "slerp"])
def test_an_exported_model_is_the_measured_one(joint: Path, operator: str, tmp_path: Path) -> None:
    inputs, study = load_inputs(joint), load_study(StudySpec.from_yaml(joint))
    chosen = [t for t in study.trials if t.params["operator"] == operator][-1]
    export_trial(inputs, study, chosen.number, tmp_path / "out")

    objective = make_objective(inputs)
    measurement = objective.measure(chosen.params)
    assert list(measurement.values) == chosen.values
    backend: object = objective.backend
    live = dict(backend._model.named_parameters())  # type: ignore[attr-defined]
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert all(torch.equal(tensor, live[name]) for name, tensor in written.named_parameters())
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"({operator.split('(')[0]}, float32)" in card


def test_a_published_model_of_one_arm_is_made_again(joint: Path, tmp_path: Path) -> None:
    study = load_study(StudySpec.from_yaml(joint))
    chains = [t for t in study.trials if ">" in t.params["experts"]]
    published = invoke("publish", joint, "--trial", chains[0].number, "--to", tmp_path / "out")
    assert published.exit_code == 0, published.stderr
    again = invoke("reproduce", tmp_path / "out")
    assert again.exit_code == 0, again.stderr
    assert "same bytes" in again.stdout


def test_mergekit_gets_the_operator_of_the_trial_or_a_refusal(joint: Path, tmp_path: Path) -> None:
    study = load_study(StudySpec.from_yaml(joint))
    ties = next(t for t in study.trials if t.params["operator"].startswith("ties"))
    out = tmp_path / "ties"
    told = invoke("export", joint, "--trial", ties.number, "--format", "mergekit", "--out", out)
    assert told.exit_code == 0, told.stderr
    assert yaml.safe_load((out / "mergekit.yaml").read_text())["merge_method"] == "ties"
    chain = next(t for t in study.trials if ">" in t.params["experts"])
    out = tmp_path / "chain"
    told = invoke("export", joint, "--trial", chain.number, "--format", "mergekit", "--out", out)
    assert told.exit_code == 1
    assert "one after the other" in told.stderr


def test_a_weight_file_names_operator_and_experts(joint: Path, tmp_path: Path) -> None:
    inputs = load_inputs(joint)
    merge_weights(inputs, {"operator": "slerp", "experts": "2", "uniform": 0.4}, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
    with pytest.raises(LayoutError, match="must name an operator and the experts"):
        merge_weights(inputs, {"uniform": 0.4}, tmp_path / "other")


def test_a_plan_of_choices_is_told_before_anything_is_created(tmp_path: Path) -> None:
    path = write_joint_spec(tmp_path, merge={"order": None})
    told = invoke("run", path, "--dry-run")
    assert told.exit_code == 0, told.stderr
    shown = " ".join(told.stdout.split())
    assert "8 choices (linear of 1 2 1+2, ties(density=0.5) of 1 2 1+2, slerp of 1 2)" in shown
    assert "left out: slerp of 2" in shown
    assert not (tmp_path / "study.db").exists()


def test_bounds_that_leave_out_the_weight_of_a_missing_expert_are_refused(tmp_path: Path) -> None:
    path = write_joint_spec(tmp_path, merge={"bounds": [0.2, 0.8]})
    for command in ([], ["--dry-run"]):
        told = invoke("run", path, *command)
        assert told.exit_code == 1
        shown = " ".join(told.stderr.split())
        assert "`merge.bounds` must hold 0 where a candidate can leave out experts" in shown
        assert "(one merges 1 alone)" in shown
        assert "write [0, 0.8]" in shown
    assert not (tmp_path / "study.db").exists()


def test_bounds_may_leave_out_the_parents(tmp_path: Path) -> None:
    merge = {"bounds": [0.2, 0.8], "operator": ["linear", "slerp"], "order": None}
    path = write_spec(tmp_path, 4, merge=merge, study={"trials": 10})
    run(load_inputs(path))
    trials = load_study(StudySpec.from_yaml(path)).trials
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 10
    for trial in trials[2:]:
        weights = [value for value in trial.params.values() if isinstance(value, float)]
        assert all(0.2 <= weight <= 0.8 for weight in weights)


def test_parents_are_one_model_under_every_arm_and_are_measured_once(joint: Path) -> None:
    inputs, study = load_inputs(joint), load_study(StudySpec.from_yaml(joint))
    same, complete = same_models(inputs.plan), [t for t in study.trials if t.values]
    assert [whole for _, whole in same[:2]] == [complete[0].params, complete[1].params]
    # Expert 1 under linear of 1 and 1+2 and slerp of 1, 1>2 and 2>1; half of TIES is no expert.
    for expert in (1, 2):
        found = [common for common, whole in same if whole == complete[expert].params]
        arms = {(each["operator"], each["experts"]) for each in found}
        chains = {("slerp", e) for e in (str(expert), "1>2", "2>1")}
        assert arms == {("linear", str(expert)), ("linear", "1+2")} | chains
    for common, _ in same:
        later = [t for t in complete[3:] if {**t.params, **common} == t.params]
        assert not later
    points = [tuple(trial.params.values()) for trial in complete]
    assert len(set(points)) == len(points)


def test_parents_give_the_same_answers_under_every_arm(joint: Path) -> None:
    inputs, study = load_inputs(joint), load_study(StudySpec.from_yaml(joint))
    objective = make_objective(inputs)
    for common, whole in same_models(inputs.plan):
        measured = next(t for t in study.trials if t.params == whole and t.values)
        arms = range(len(inputs.plan.arms)) if "operator" not in common else [None]
        for arm in arms:
            chosen = {} if arm is None else inputs.plan.settings.choice(arm)
            again = objective.measure({**whole, **chosen, **common})
            assert list(again.values) == measured.values


def test_an_expert_that_is_merged_last_whole_leaves_nothing_of_the_others(joint: Path) -> None:
    inputs, study = load_inputs(joint), load_study(StudySpec.from_yaml(joint))
    objective, chains = make_objective(inputs), []
    for common, whole in same_models(inputs.plan):
        free = {name: 0.6 for name in whole if "@" in name and name not in common}
        if free:
            chains.append(common["experts"])
            assert {common[name] for name in common if name.endswith("@" + chains[-1][-1])} == {
                1.0
            }
            measured = next(t for t in study.trials if t.params == whole and t.values)
            again = objective.measure({**whole, **common, **free})
            assert list(again.values) == measured.values
    assert chains == ["2>1", "1>2"]


@pytest.mark.parametrize("preset", ["mergefront", "tpe"])
def test_queued_merges_are_what_was_asked_for_or_refused(preset: str, tmp_path: Path) -> None:
    path = write_joint_spec(tmp_path, 4, study={"trials": 11}, sampler={"preset": preset})
    inputs = load_inputs(path)
    study = init_study(inputs)
    weight, first = "layer_000@1", len(study.trials)
    for wish in (
        {weight: 0.7},
        {"operator": "slerp", "experts": "1+2"},
        {"experts": "2", weight: 0.7},
        {"operator": "ties(density=0.5)", weight: 0.2},
    ):
        study.enqueue_trial(wish)
    whole = dict(study.trials[0].params) | {"operator": "slerp", "experts": "2", weight: 0.7}
    distributions = search_space(inputs.spec, inputs.plan)
    study.add_trial(
        create_trial(state=TrialState.WAITING, params=whole, distributions=distributions)
    )
    run(inputs)
    found = load_study(inputs.spec).trials[first : first + 5]
    assert [t.state.name for t in found] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "FAIL"]
    for trial, wished in ((found[0], 0.7), (found[3], 0.2)):
        arm = inputs.plan.settings.arm_of(trial.params)
        assert {**trial.params, **inputs.plan.arm_params(arm), weight: wished} == trial.params
    assert found[3].params["operator"] == "ties(density=0.5)"
    for trial in (found[1], found[2], found[4]):
        told = trial.user_attrs["failure"]
        assert told.startswith("The queued trial cannot be merged: no arm allows ")
        assert "worker" not in trial.user_attrs
    assert f"which fixes {weight}=0.0." in found[2].user_attrs["failure"]


@pytest.mark.parametrize("preset", ["qnehvi", "tpe", "nsga2", "gp", "random"])
def test_other_samplers_search_the_same_space(preset: str, tmp_path: Path) -> None:
    path = write_joint_spec(tmp_path, 4, study={"trials": 12}, sampler={"preset": preset})
    inputs = load_inputs(path)
    run(inputs)
    trials = load_study(inputs.spec).trials
    assert len(trials) == 12
    for trial in trials[3:]:
        arm = inputs.plan.settings.arm_of(trial.params)
        assert {**trial.params, **inputs.plan.arm_params(arm)} == trial.params


def test_another_choice_of_operators_is_another_study(joint: Path, tmp_path: Path) -> None:
    spec = yaml.safe_load(joint.read_text())
    spec["merge"]["operator"] = ["linear", "slerp"]
    other = joint.parent / "other.yaml"
    other.write_text(yaml.safe_dump(spec))
    refused = invoke("run", other)
    assert refused.exit_code == 1
    assert "merge.operator was" in refused.stderr
    assert trial_of(load_study(StudySpec.from_yaml(joint)), 0).params["operator"] == "linear"
