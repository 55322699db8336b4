"""Tasks of texts in a spec, and a study with a limit on forgetting."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from command import invoke
from mergefront.errors import SpecError
from mergefront.study.cli.json_lines import WORKER
from mergefront.study.cli.telemetry import JsonReporter
from mergefront.study.dry_run import plan_study
from mergefront.study.readiness import check_ready
from mergefront.study.results.front import front_report
from mergefront.study.run import run
from mergefront.study.spec import load_inputs
from mergefront.study.spec.study_spec import StudySpec
from mergefront.study.storage.connection import load_study
from small_study import read_json_lines, write_spec


def _with_texts(folder: Path, **changes: Any) -> Path:
    path = write_spec(folder, n_questions=8, study={"trials": 3})
    content = yaml.safe_load(path.read_text())
    for split in ("search", "validation"):
        lines = read_json_lines(folder / f"{split}.jsonl")
        written = "\n\n".join(line["prompt"] + line["answer"] for line in lines)
        (folder / f"{split}.txt").write_text(written)
    texts = {"search": "search.txt", "validation": "validation.txt"}
    content["evaluation"]["tasks"].append({"name": "general", "texts": texts})
    content["constraints"] = ["kl/base <= 0.1"]
    content.update(changes)
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_study_keeps_to_a_limit_on_forgetting(tmp_path: Path) -> None:
    spec = StudySpec.from_yaml(_with_texts(tmp_path))
    told = dict(plan_study(spec))
    assert "general: 8 search, 8 validation, texts that are read" in told["questions"]
    assert told["answers"].startswith("8 a candidate")
    run(load_inputs(tmp_path / "spec.yaml"))
    trials = load_study(spec).get_trials(deepcopy=False)
    by_label = {trial.user_attrs.get("label"): trial for trial in trials}
    assert by_label["base"].constraints == {"kl/base <= 0.1": -0.1}
    assert by_label["expert"].constraints["kl/base <= 0.1"] > 0
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials)
    assert all(trial.user_attrs["n_questions"] == 8 for trial in trials)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": [{"metric": "kl"}]}, "metric must be one of .*'kl'"),
        ({"objectives": [{"metric": "kl/expert@2"}]}, r"'kl/expert@2' names an expert that"),
        ({"objectives": [{"metric": "kl/base/demo"}]}, "'kl/base/demo' is counted in texts"),
        ({"constraints": ["kl/base <= nan"]}, "the number finite, but got 'kl/base <= nan'"),
        ({"constraints": ["kl/base >= -inf"]}, "the number finite, but got 'kl/base >= -inf'"),
        ({"constraints": ["tokens/general <= 9"]}, "'general' has none. Add a task that gener"),
        ({"constraints": ["accuracy/general >= 0.5"]}, "'accuracy/general' is counted in gen"),
    ],
)
def test_metrics_need_their_kind_of_task(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_inputs(_with_texts(tmp_path, **changes))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (["accuracy >= 80"], "`accuracy` is between 0 and 1, and none keeps to `accuracy >= 80`"),
        (["truncation <= -1"], "none keeps to `truncation <= -1`"),
        (["kl/base <= -0.1"], "none keeps to `kl/base <= -0.1`"),
        (["tokens <= 5", "accuracy >= 0.5", "tokens >= 9"], "`tokens <= 5` and `tokens >= 9`"),
    ],
)
def test_limits_that_no_model_keeps_to_are_refused(
    tmp_path: Path, limits: list[str], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        check_ready(load_inputs(_with_texts(tmp_path, constraints=limits)))


@pytest.mark.parametrize(
    "limits", [["accuracy >= 1"], ["tokens >= 5", "tokens <= 9"], ["tokens <= 5", "tokens <= 9"]]
)
def test_limits_that_some_model_may_keep_to_are_taken(tmp_path: Path, limits: list[str]) -> None:
    check_ready(load_inputs(_with_texts(tmp_path, constraints=limits)))


def test_vllm_reads_texts_and_keys_of_answers_are_refused(tmp_path: Path) -> None:
    path = _with_texts(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["evaluation"]["backend"] = "vllm"
    path.write_text(yaml.safe_dump(content))
    assert StudySpec.from_yaml(path).evaluation.backend == "vllm"
    content["evaluation"]["tasks"][1]["scorer"] = "math"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SpecError, match="texts are read and not answered: remove scorer"):
        StudySpec.from_yaml(path)


def _screened(path: Path, **study: Any) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    content["evaluation"]["screen"] = True
    content["study"] |= study
    path.write_text(yaml.safe_dump(content))
    return content


def test_vllms_longest_text_is_part_of_a_study_that_reads(tmp_path: Path) -> None:
    path = _with_texts(tmp_path, constraints=["perplexity <= 30"])
    content = yaml.safe_load(path.read_text())

    def told(backend: str, longest: int, n_tasks: int) -> dict[str, Any]:
        evaluation = {**content["evaluation"], "backend": backend}
        evaluation["engine"] = {"max_model_len": longest}
        evaluation["tasks"] = content["evaluation"]["tasks"][:n_tasks]
        constraints = content["constraints"] if n_tasks == 2 else []
        written = {**content, "evaluation": evaluation, "constraints": constraints}
        path.write_text(yaml.safe_dump(written))
        return load_inputs(path).fingerprint()

    assert told("vllm", 128, 2)["evaluation.engine.max_model_len"] == 128
    assert told("vllm", 128, 2) != told("vllm", 256, 2)
    assert told("vllm", 128, 1) == told("vllm", 256, 1)
    assert told("transformers", 128, 2) == told("transformers", 256, 2)


def test_a_screen_needs_texts_to_judge_by(tmp_path: Path) -> None:
    path = _with_texts(tmp_path)
    content = _screened(path)
    check_ready(load_inputs(path))
    (tmp_path / "search.txt").write_text("1+1=2\n\n1+2=3\n\n1+3=4\n\n1+4=5\n")
    with pytest.raises(SpecError, match=r"needs 5 texts .* but 'general' has 4\. Add texts"):
        check_ready(load_inputs(path))
    result = invoke("run", path, "--dry-run")
    assert result.exit_code and "needs 5 texts" in result.output
    lines = [{"text": f"{i}+1={i + 1}", "passage": str(i % 4)} for i in range(8)]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = content["evaluation"]["tasks"][1]
    texts["texts"]["search"], texts["cluster"] = "few.jsonl", "passage"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SpecError, match="but 'general' has 4"):
        check_ready(load_inputs(path))


def test_tokens_end_only_a_study_that_generates(tmp_path: Path) -> None:
    path = _with_texts(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["study"] |= {"trials": None, "budget": {"tokens": 900}}
    path.write_text(yaml.safe_dump(content))
    check_ready(load_inputs(path))
    _screened(path)
    with pytest.raises(SpecError, match=r"with `evaluation.screen` needs `study.trials` too"):
        StudySpec.from_yaml(path)
    _screened(path, trials=8)
    check_ready(load_inputs(path))
    del content["evaluation"]["tasks"][0]
    content["objectives"] = [{"metric": "kl/expert"}, {"metric": "perplexity"}]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SpecError, match=r"900 tokens needs a task that generates.* 'general'"):
        check_ready(load_inputs(path))
    result = invoke("run", path, "--dry-run")
    assert result.exit_code and "needs a task that generates" in result.output


def test_who_has_forgotten_is_asked_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = _with_texts(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["evaluation"]["screen"] = True
    content["sampler"] = {"preset": "random", "n_startup_trials": 3}
    content["study"]["trials"] = 8
    path.write_text(yaml.safe_dump(content))
    spec = StudySpec.from_yaml(path)
    with caplog.at_level("INFO", logger=WORKER):
        run(load_inputs(path), JsonReporter(spec))
    told = [vars(record) for record in caplog.records if record.msg == "trial finished"]
    study = load_study(spec)
    trials = study.get_trials(deepcopy=False)
    screened = [t for t in trials if t.state == optuna.trial.TrialState.PRUNED]
    assert len(trials) == 8 and screened
    assert {r["trial"] for r in told if r["screened"]} == {t.number for t in screened}
    for trial in screened:
        assert trial.values is None and trial.user_attrs["generated_tokens"] == 0
        assert trial.user_attrs["screened"] == ["kl/base <= 0.1"]
        assert trial.constraints["kl/base <= 0.1"] > 0
    # Parents are measured whatever they have forgotten.
    assert {t.user_attrs["phase"] for t in screened} == {"search"}
    assert not {t.number for t in screened} & {t.number for t in front_report(study, spec).trials}
    for command in ("status", "front", "report"):
        assert invoke(command, str(path)).exit_code == 0
    content["constraints"] = ["truncation <= 0.5"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SpecError, match="`screen` needs a constraint on texts"):
        StudySpec.from_yaml(path)
