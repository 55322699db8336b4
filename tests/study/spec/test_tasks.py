"""Studies of several tasks, with constraints, and over tasks of lm-eval."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import invoke
from harness_task import CHAINS
from mergefront.errors import SpecError, StudyError
from mergefront.examples.demo import QUESTIONS
from mergefront.study import StudySpec, pareto_front
from mergefront.study.results.front import front_report
from mergefront.study.results.report.page import write_report
from mergefront.study.results.validation import validate
from mergefront.study.run import make_objective, run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import read_json_lines, write_spec


def _two_tasks(folder: Path, constraints: list[str], **changes: Any) -> Path:
    """Write a spec over facts and chains; the chains are cut from one file."""
    lines = read_json_lines(QUESTIONS / "search.jsonl")
    for kind in ("fact", "chain"):
        rows = [line for line in lines if line["kind"] == kind][:20]
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = write_spec(folder, study={"trials": 4}, sampler={"preset": "random"}, **changes)
    content = yaml.safe_load(path.read_text())
    content["constraints"] = constraints
    content["evaluation"]["splits"] = {"search": 0.5, "validation": 0.5}
    content["evaluation"]["tasks"] = [
        {"name": "facts", "path": "fact.jsonl", "anchors": [0.5, 1.0]},
        {"name": "chains", "path": "chain.jsonl", "max_new_tokens": 30, "weight": 2},
    ]
    path.write_text(yaml.safe_dump(content))
    return path


def test_tasks_are_reported_alone_and_constraints_are_optunas(tmp_path: Path) -> None:
    path = _two_tasks(tmp_path, ["truncation <= 0.05", "accuracy/facts >= 0.5"])
    run(load_inputs(path))
    study = load_study(StudySpec.from_yaml(path))
    for trial in study.trials:
        tasks = trial.user_attrs["tasks"]
        expected = ((tasks["accuracy/facts"][0] - 0.5) / 0.5 + 2 * tasks["accuracy/chains"][0]) / 3
        assert trial.values[0] == pytest.approx(expected)
        kept = trial.constraints["accuracy/facts >= 0.5"]
        assert kept == pytest.approx(0.5 - tasks["accuracy/facts"][0])
        assert trial.user_attrs["constraint_errors"].keys() == trial.constraints.keys()
    expert = study.trials[1]
    assert expert.user_attrs["label"] == "expert"
    # Chains of five steps and more need over 30 tokens: the expert is cut, and not in the front.
    assert expert.constraints["truncation <= 0.05"] > 0.1
    assert 1 not in {trial.number for trial in pareto_front(study)}


def test_where_nothing_keeps_to_the_constraints_there_is_no_front(tmp_path: Path) -> None:
    path = _two_tasks(tmp_path, ["tokens <= 1"])
    run(load_inputs(path))
    spec = StudySpec.from_yaml(path)
    study = load_study(spec)
    report = front_report(study, spec)
    assert (report.trials, report.hypervolume, report.knee) == ([], 0.0, None)
    with pytest.raises(StudyError, match="is believed to keep to its constraints yet"):
        write_report(study, spec, tmp_path / "report")
    objective = make_objective(load_inputs(path), "validation")
    with pytest.raises(StudyError, match="is believed to keep to its constraints yet"):
        validate(report, study, objective, "validation")
    shown = invoke("front", path)
    assert "no trial is believed to keep to the constraints yet" in shown.stdout


def test_the_uniform_curve_keeps_to_the_constraints_too(tmp_path: Path) -> None:
    path = _two_tasks(tmp_path, ["truncation <= 0.05"])
    run(load_inputs(path))
    spec = StudySpec.from_yaml(path)
    study = load_study(spec)
    objective = make_objective(load_inputs(path), "validation")
    validation = validate(front_report(study, spec), study, objective, "validation")
    expert = next(model for model in validation.models if model.label == "expert")
    assert not expert.in_uniform
    base = next(model for model in validation.models if model.label == "base")
    assert base.in_uniform


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("truncation < 0.05", "must be `metric <= number` or `metric >= number`"),
        ("truncation <= few", "must be `metric <= number`"),
        ("truncaton <= 0.05", "did you mean 'truncation'"),
        ("truncation/fact <= 0.05", "must be one of facts, chains, but got 'fact'; did you mean"),
    ],
)
def test_a_constraint_that_cannot_be_read_is_refused(
    tmp_path: Path, constraint: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        StudySpec.from_yaml(_two_tasks(tmp_path, [constraint]))


def test_rules_that_turn_answers_into_values_are_part_of_the_study(tmp_path: Path) -> None:
    plain = load_inputs(_two_tasks(tmp_path, [])).fingerprint()
    limited = load_inputs(_two_tasks(tmp_path, ["truncation <= 0.050"])).fingerprint()
    assert plain["evaluation.shares"] == {"facts": [1.0, 0.5, 1.0], "chains": [2.0, 0.0, 1.0]}
    assert limited["constraints"] == ["truncation <= 0.05"]


def test_a_task_of_lm_eval_is_a_task_of_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    rows = (QUESTIONS / "search.jsonl").read_text().splitlines()[:40]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    harness = {**CHAINS, "generation_kwargs": {"until": []}}
    (tmp_path / "chains.yaml").write_text(yaml.safe_dump(harness))
    path = write_spec(tmp_path, study={"trials": 2}, sampler={"preset": "random"})
    content = yaml.safe_load(path.read_text())
    content["evaluation"]["tasks"] = [
        {"name": "t", "lm_eval": "chains.yaml", "dataset": {"test": "data.jsonl"}}
    ]
    path.write_text(yaml.safe_dump(content))
    run(load_inputs(path))
    base, expert = load_study(StudySpec.from_yaml(path)).trials
    assert base.user_attrs["n_questions"] == 24
    assert base.values[1] < 3 < expert.values[1]


def test_keys_of_lm_eval_belong_to_its_tasks(tmp_path: Path) -> None:
    path = _two_tasks(tmp_path, [])
    content = yaml.safe_load(path.read_text())
    content["evaluation"]["tasks"][0]["num_fewshot"] = 3
    with pytest.raises(SpecError, match="only tasks of lm-eval have num_fewshot"):
        StudySpec.parse(content, tmp_path)
