"""A first spec from a few names."""

import json
from pathlib import Path

import pytest
import yaml

from command import invoke
from mergefront.errors import SpecError
from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.study import StudySpec
from mergefront.study.spec.draft import Draft, longest_answer
from mergefront.study.storage.connection import load_study


def test_a_draft_is_a_valid_commented_spec(tmp_path: Path) -> None:
    draft = Draft("Qwen/Qwen3-4B-Instruct-2507", ["a/B", "c/D"], ["gsm8k", "my questions.jsonl"])
    assert draft.study == "qwen3-4b-instruct-2507-b-d"
    spec = StudySpec.parse(yaml.safe_load(draft.text()), tmp_path)
    assert spec.models.experts == ["a/B", "c/D"]
    assert (spec.models.dtype, spec.study.trials) == ("bfloat16", 60)
    first, second = spec.evaluation.tasks
    assert (first.name, first.lm_eval) == ("gsm8k", "gsm8k")
    assert (second.name, second.path) == ("my-questions", "my questions.jsonl")
    assert draft.text().count("#") >= 8


def test_answers_and_prompts_fit_a_models_positions() -> None:
    assert json.loads((BASE / "config.json").read_text())["max_position_embeddings"] == 128
    assert longest_answer(str(BASE)) == 64
    assert longest_answer("organization/model-on-the-hub") == 1024


def test_a_models_own_dtype_is_taken() -> None:
    spec = yaml.safe_load(Draft(str(BASE), [str(EXPERT)], ["gsm8k"]).text())
    assert spec["models"]["dtype"] == json.loads((BASE / "config.json").read_text())["dtype"]


@pytest.mark.parametrize("name", ['a"b', "ä ö", "x: y", "..", "a/../b"])
def test_odd_names_are_harmless(name: str, tmp_path: Path) -> None:
    study = yaml.safe_load(Draft("a/b", ["c/d"], ["gsm8k"], name).text())["study"]
    assert "/" not in study["name"]
    StudySpec.parse(yaml.safe_load(Draft(name, [name], ["gsm8k"]).text()), tmp_path)


def test_a_file_that_says_something_else_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    assert Draft("a/b", ["c/d"], ["gsm8k"], "s").write(path)
    before = path.read_text()
    assert not Draft("a/b", ["c/d"], ["gsm8k"], "s", trials=90).write(path)
    with pytest.raises(SpecError, match="nothing was overwritten"):
        Draft("a/b", ["c/e"], ["gsm8k"], "s").write(path)
    assert path.read_text() == before


def test_two_models_and_questions_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = (QUESTIONS / "search.jsonl").read_text().splitlines(keepends=True)[:40]
    (tmp_path / "questions.jsonl").write_text("".join(lines))
    models = ("run", BASE, EXPERT, "--task", "questions.jsonl", "--name", "mine")
    limits = ("--max-new-tokens", "16", "--trials")
    done = invoke(*models, *limits, 3)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith("wrote mine.yaml\n")
    assert "next: mergefront front mine.yaml" in done.stderr
    again = invoke(*models, *limits, 4)
    assert again.stderr.startswith("found mine.yaml\n")
    assert len(load_study(StudySpec.from_yaml("mine.yaml")).trials) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", BASE, EXPERT), "need questions: add `--task FILE.jsonl`"),
        (("run", BASE), "Add the expert"),
        (("run", BASE, EXPERT, "--task", "no such/task"), "--task must be a question file"),
        (("new", BASE, EXPERT), "needs BASE, EXPERT and `--task`"),
        (("new",), "needs BASE, EXPERT and `--task`"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(
    arguments: tuple[object, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke(*arguments)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not list(tmp_path.iterdir())


def test_neither_a_dry_run_nor_a_mistyped_model_leaves_a_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.jsonl").write_text((QUESTIONS / "search.jsonl").read_text())
    rest = ("--task", "q.jsonl", "--name", "mine")
    wrong = invoke("run", BASE, f"{EXPERT}x", *rest)
    assert (wrong.exit_code, len(wrong.stderr.splitlines())) == (1, 1)
    planned = invoke("run", BASE, EXPERT, *rest, "--trials", 30, "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    assert "30: 2 parents" in planned.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]
    assert Draft(str(BASE), ["another"], ["q.jsonl"], "mine").write(tmp_path / "mine.yaml")
    refused = invoke("run", BASE, EXPERT, *rest, "--dry-run")
    assert (refused.exit_code, "nothing was overwritten" in refused.stderr) == (1, True)


def test_new_writes_a_spec_and_says_what_is_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = invoke("new", "a/b", "c/d", "--task", "gsm8k", "--trials", "90")
    assert done.exit_code == 0
    assert StudySpec.from_yaml("b-d.yaml").study.trials == 90
    assert "mergefront run b-d.yaml --dry-run" in done.stderr
