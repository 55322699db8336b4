"""Files whose questions share ids: a study measures what it does with ids of their own."""

import json
from pathlib import Path
from typing import Any

import pytest

from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import read_json_lines, write_spec

RACING = {"racing": {"blocks": [0.2], "margin": 0, "share": 0.5, "strong_share": 1.0}}


def _measured(folder: Path, evaluation: dict[str, Any], shared: bool) -> list[tuple[Any, ...]]:
    """Return what nine trials measured: states, values, errors and answers' numbers."""
    folder.mkdir()
    path = write_spec(
        folder,
        n_questions=40,
        study={"trials": 9},
        importance={"kind": "none"},
        sampler={"preset": "random", "n_startup_trials": 4},
        evaluation=evaluation,
    )
    for split in ("search", "validation"):
        rows = read_json_lines(folder / f"{split}.jsonl")
        names = ["x" if shared else f"{split} {place}" for place in range(len(rows))]
        lines = [json.dumps({**r, "id": name}) for r, name in zip(rows, names, strict=True)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    inputs = load_inputs(path)
    run(inputs)
    return [
        (
            trial.state,
            trial.values,
            trial.user_attrs["standard_errors"],
            trial.user_attrs.get("numbers"),
            (trial.user_attrs.get("answers") or {}).get("values"),
        )
        for trial in load_study(inputs.spec).trials
    ]


@pytest.mark.parametrize("evaluation", [RACING, {"rotate": True}], ids=["racing", "rotation"])
def test_shared_ids_change_no_number(tmp_path: Path, evaluation: dict[str, Any]) -> None:
    shared = _measured(tmp_path / "shared", evaluation, shared=True)
    assert shared == _measured(tmp_path / "own", evaluation, shared=False)
    assert any(numbers or answers for *_, numbers, answers in shared)
