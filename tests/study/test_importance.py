"""The importance that a spec asks for."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import invoke
from mergefront.errors import SpecError
from mergefront.study.importance import compute_importance, prompts_of, signals_of
from mergefront.study.spec.inputs import StudyInputs, load_inputs
from small_study import write_spec


def _inputs(folder: Path, **importance: Any) -> StudyInputs:
    path = write_spec(folder, importance=importance)
    content = yaml.safe_load(path.read_text())
    content["evaluation"]["tasks"][0]["files"]["importance"] = "importance.jsonl"
    path.write_text(yaml.safe_dump(content))
    (folder / "importance.jsonl").write_text(
        '{"id": "i0", "prompt": "What is 2 plus 2?", "answer": "4"}\n'
    )
    return load_inputs(path)


def test_both_signals_make_an_importance(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, kind="both", norm="absolute", tensors="matrices")
    signals = signals_of(inputs)
    assert list(signals) == ["parameter", "activation"]
    importance = compute_importance(inputs, signals)
    assert importance is not None
    assert list(importance) == inputs.plan.parameter_names
    assert all(0.05 <= value <= 1 for value in importance.values())
    assert len(set(importance.values())) > 5


def test_permuted_values_are_the_same_elsewhere(tmp_path: Path) -> None:
    plain = compute_importance(_inputs(tmp_path, kind="parameter"))
    permuted = compute_importance(_inputs(tmp_path, kind="parameter", permuted=True))
    assert plain is not None
    assert permuted is not None
    assert permuted != plain
    assert sorted(permuted.values()) == sorted(plain.values())
    assert compute_importance(_inputs(tmp_path, kind="parameter", permuted=True)) == permuted


def test_activations_need_questions_of_their_own(tmp_path: Path) -> None:
    inputs = load_inputs(write_spec(tmp_path, importance={"kind": "activation"}))
    with pytest.raises(SpecError, match="needs questions that no candidate is measured on"):
        compute_importance(inputs)


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        ({"kind": "file", "path": "none.json"}, "must be a readable JSON file"),
        ({"kind": "both"}, "needs questions that no candidate is measured on"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_what_an_importance_lacks_is_said_before_anything_is_created(
    tmp_path: Path, importance: dict[str, Any], message: str, more: tuple[str, ...]
) -> None:
    path = write_spec(tmp_path, importance=importance)
    result = invoke("run", path, *more)
    assert (result.exit_code, message in result.stderr) == (1, True)
    shown = invoke("status", path)
    assert (shown.exit_code, "is no study" in shown.stderr or "no database" in shown.stderr) == (
        1,
        True,
    )


def test_texts_are_no_prompts(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path, kind="activation")
    spec = yaml.safe_load((tmp_path / "spec.yaml").read_text())
    for split in ("importance", "search"):
        (tmp_path / f"{split}.txt").write_text(f"A long text for {split}.")
    texts = {"name": "texts", "texts": {s: f"{s}.txt" for s in ("importance", "search")}}
    spec["evaluation"]["tasks"].append(texts)
    assert prompts_of(_written(tmp_path, spec)) == prompts_of(inputs)
    del spec["evaluation"]["tasks"][0]["files"]["importance"]
    with pytest.raises(SpecError, match="needs questions that no candidate is measured on"):
        prompts_of(_written(tmp_path, spec))


def _written(folder: Path, spec: dict[str, Any]) -> StudyInputs:
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(spec))
    return load_inputs(path)


def test_importance_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "importance.json"
    path.write_text(json.dumps({"layer_003": 0.9, "head": 0}))
    inputs = _inputs(tmp_path, kind="file", path="importance.json")
    assert compute_importance(inputs) == {"layer_003": 0.9, "head": 0.0}
    for content, message in (
        ('{"layer_3": 0.9}', r"must map search variables .* but holds \['layer_3'\]"),
        ('{"layer_003": 2}', r"within \[0, 1\], but .* has layer_003: 2"),
        ("[1]", "must map search variables"),
        ("{", "must be a readable JSON file"),
        ('{"head": 1, "head": 0}', "importance.json: the key 'head' comes twice. Correct"),
    ):
        path.write_text(content)
        with pytest.raises(SpecError, match=message):
            compute_importance(inputs)


def test_a_file_is_named_where_one_is_asked_for(tmp_path: Path) -> None:
    for importance in ({"kind": "file"}, {"kind": "parameter", "path": "x.json"}):
        with pytest.raises(SpecError, match="kind 'file' needs `path`, and no other kind has one"):
            _inputs(tmp_path, **importance)
