"""`evaluation.sampling`: what it means, what is refused, what parents recommend."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from command import invoke
from mergefront.errors import SpecError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.evaluation import Sampling, Task
from mergefront.study import StudySpec
from mergefront.study.dry_run import plan_study
from mergefront.study.readiness import check_ready
from mergefront.study.spec import load_inputs
from small_study import write_spec

QWEN = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 20}


def _expert(folder: Path, **recommended: Any) -> str:
    """Copy the demo's expert with a generation config that recommends something."""
    target = folder / "expert"
    shutil.copytree(EXPERT, target, dirs_exist_ok=True)
    path = target / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **recommended}))
    return str(target)


def _models(folder: Path, **recommended: Any) -> dict[str, Any]:
    return {"experts": [_expert(folder, **recommended)], "base": str(BASE), "dtype": "float32"}


def _sampling(folder: Path, sampling: dict[str, Any], **changes: Any) -> Sampling:
    return load_inputs(write_spec(folder, evaluation={"sampling": sampling}, **changes)).sampling


def test_greedy_once_is_the_default_and_in_no_fingerprint(tmp_path: Path) -> None:
    inputs = load_inputs(write_spec(tmp_path))
    assert inputs.sampling == Sampling(48)
    assert "evaluation.sampling" not in inputs.fingerprint()
    assert inputs.greedy_warning is None


@pytest.mark.parametrize("given", [{"repeats": 4}, {"top_p": 1.0, "repeats": 4}, {"top_k": 5}])
def test_what_greedy_answers_would_ignore_is_refused(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    with pytest.raises(SpecError, match=f"{list(given)[-1]} needs a temperature above 0"):
        _sampling(tmp_path, given)


def test_what_is_drawn_is_in_the_fingerprint_with_the_studys_seed(tmp_path: Path) -> None:
    study = {"name": "s", "storage": f"sqlite:///{tmp_path}/s.db", "trials": 3, "seed": 7}
    chosen = {"temperature": 0.7, "top_p": 0.8, "repeats": 4}
    path = write_spec(tmp_path, evaluation={"sampling": chosen}, study=study)
    inputs = load_inputs(path)
    assert inputs.sampling == Sampling(48, temperature=0.7, top_p=0.8, repeats=4, seed=7)
    assert inputs.fingerprint()["evaluation.sampling"] == {**chosen, "seed": 7}
    again = inputs.spec.with_overrides(trials=5)
    assert again.evaluation.sampling == inputs.spec.evaluation.sampling


def test_a_parents_recommendation_is_taken_and_said(tmp_path: Path) -> None:
    given = {"from": "generation_config", "repeats": 2, "top_p": 0.9}
    models = _models(tmp_path, **QWEN)
    sampling = _sampling(tmp_path, given, models=models)
    assert sampling == Sampling(48, temperature=0.6, top_p=0.9, top_k=20, repeats=2)
    path = write_spec(tmp_path, models=models, evaluation={"sampling": given})
    assert load_inputs(path).spec.with_overrides(trials=5)
    plan = dict(plan_study(StudySpec.from_yaml(path)))
    assert plan["decoding"] == (
        "temperature 0.6, top_p 0.9, top_k 20 (from the expert's generation_config.json); "
        "2 answers a question, seed 0"
    )
    assert "48 a candidate" in plan["answers"]
    assert "warning" not in plan


def test_greedy_against_a_recommendation_is_warned_of_once(tmp_path: Path) -> None:
    path = write_spec(tmp_path, models=_models(tmp_path, **QWEN))
    lines = [
        line for line in plan_study(StudySpec.from_yaml(path)) if "asks for sampling" in line[1]
    ]
    ((title, text),) = lines
    assert title == "warning"
    assert "expert's generation_config.json" in text
    assert "temperature 0.6" in text


@pytest.mark.parametrize(
    "config", [{"do_sample": False, "temperature": 0.6}, {"do_sample": True, "temperature": 0}]
)
def test_what_recommends_greedy_is_no_recommendation(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    assert (
        load_inputs(write_spec(tmp_path, models=_models(tmp_path, **config))).greedy_warning
        is None
    )
    for asked, said in (
        ("generation_config", r"but neither .*json nor .*generation_config\.json does\. Give"),
        ("expert", r"but [^ ]*generation_config\.json does not\. Give"),
    ):
        with pytest.raises(SpecError, match=f"needs a parent that recommends sampling, {said}"):
            _sampling(tmp_path, {"from": asked}, models=_models(tmp_path, **config))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"top_k": 20.5}, "top_k is 20.5 in .*generation_config.json, but must be an integer"),
        ({"temperature": "hot"}, "temperature is 'hot' in"),
        ({"top_p": 7}, "top_p is 7 in .*less than or equal to 1"),
    ],
)
def test_a_recommendation_that_cannot_be_followed_is_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    models = _models(tmp_path, **{"do_sample": True, "temperature": 0.6, **config})
    with pytest.raises(SpecError, match=message):
        _sampling(tmp_path, {"from": "generation_config"}, models=models)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"repeats": 4}, "repeats needs a temperature above 0"),
        ({"top_p": 0.9}, "top_p needs a temperature above 0"),
        ({"temperature": 0, "repeats": 4}, "with temperature 0 all answers"),
        ({"temprature": 0.7}, "did you mean 'temperature'"),
        ({"form": "base"}, "did you mean 'from'"),
        ({"temperature": -1}, "greater than or equal to 0"),
        ({"temperature": 0.7, "top_p": 0}, "greater than 0"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        _sampling(tmp_path, sampling)
    assert "\n" not in str(caught.value)


def _tasks(folder: Path, *tasks: dict[str, Any], **evaluation: Any) -> tuple[Task, ...]:
    """Load a study of several tasks, each of three questions of its own, in three passages."""
    changed = []
    for k, task in enumerate(tasks):
        rows = [{"prompt": f"{k}+{i}?", "answer": "1", "page": f"p{i // 2}"} for i in range(3)]
        (folder / f"{k}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        changed.append({"name": f"t{k}", "files": {"search": f"{k}.jsonl"}, **task})
    path = write_spec(folder, evaluation={"tasks": changed, **evaluation})
    return load_inputs(path).tasks


def test_a_task_may_have_its_own(tmp_path: Path) -> None:
    greedy, once = {"sampling": {"temperature": 0}}, {"sampling": {"repeats": 1}}
    study = {"temperature": 0.7, "top_k": 5, "repeats": 3}
    tasks = _tasks(tmp_path, {}, greedy, {**once, "max_new_tokens": 9}, sampling=study)
    drawn = Sampling(9, temperature=0.7, top_k=5, repeats=1)
    assert [task.sampling for task in tasks] == [None, Sampling(48), drawn]


def test_clusters_are_read_from_a_field_and_part_of_what_is_measured(tmp_path: Path) -> None:
    joined, alone = _tasks(tmp_path, {"cluster": "page"}, {})
    assert [q.cluster for q in joined.splits["search"]] == ["p0", "p0", "p1"]
    assert [q.cluster for q in alone.splits["search"]] == ["", "", ""]
    (plain,) = _tasks(tmp_path, {})
    assert plain.content_hash() != joined.content_hash()
    with pytest.raises(SpecError, match="has no 'passage'"):
        _tasks(tmp_path, {"cluster": "passage"})


def test_a_sampled_study_is_one_study_whatever_its_batches(tmp_path: Path) -> None:
    """Two studies of one seed, in other batches: equal trials; resumed, nothing is generated."""
    values = []
    for batch_size in (3, 64):
        folder = tmp_path / str(batch_size)
        folder.mkdir()
        sampling = {"temperature": 0.7, "repeats": 2}
        path = write_spec(
            folder, n_questions=6, evaluation={"sampling": sampling, "batch_size": batch_size}
        )
        assert invoke("run", str(path), "--trials", "3").exit_code == 0
        front = json.loads(invoke("front", str(path), "--format", "json").stdout)
        values.append([trial["values"] for trial in front["trials"]])
    assert values[0] == values[1]


def test_criteria_name_models_that_there_are(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    text = path.read_text()
    for label in ("expert", "uniform 0.43", "trial 9"):
        path.write_text(text + f"criteria: [accuracy over {label} > 0]\n")
        check_ready(load_inputs(path))
    path.write_text(text + "criteria: [accuracy over exprt > 0]\n")
    with pytest.raises(SpecError, match="names 'exprt'; did you mean 'expert'"):
        plan_study(StudySpec.from_yaml(path))


def test_a_study_answers_its_criteria_and_says_what_repeats_bring(tmp_path: Path) -> None:
    criteria = ["gain over uniform > -10 with 95 %", "accuracy over expert > 2"]
    sampling = {"temperature": 0.7, "repeats": 2}
    path = write_spec(tmp_path, n_questions=6, evaluation={"sampling": sampling})
    path.write_text(path.read_text() + f"criteria: {json.dumps(criteria)}\n")
    assert invoke("run", str(path), "--trials", "3").exit_code == 0
    content = json.loads(invoke("validate", str(path), "--format", "json").stdout)
    assert [answer["proven"] for answer in content["criteria"]] == [True, False]
    assert {row["against"] for row in content["paired"]} <= {"base", "expert"}
    plan = dict(plan_study(StudySpec.from_yaml(path)))
    assert "accuracy ±" in plan["repeats"]
    assert "too few to tell models of a front apart" in plan["visible"]
    path.write_text(path.read_text().replace("> 2", "> 3"))
    changed = invoke("run", str(path), "--trials", "3")
    assert (changed.exit_code, "criteria was" in changed.stderr) == (1, True)
