"""`merge.precision` in a spec: what is accepted, and what is refused in one line."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mergefront.errors import SpecError
from mergefront.objectives.merging import Precision
from mergefront.objectives.merging.precision import FORMATS
from mergefront.study.readiness import check_ready
from mergefront.study.spec import load_inputs
from mergefront.study.spec.inputs import StudyInputs
from small_study import write_spec


def _inputs(folder: Path, **changes: Any) -> StudyInputs:
    changes["models"] = {"dtype": "bfloat16", **changes.get("models", {})}
    return load_inputs(write_spec(folder, 4, **changes))


def _merge(precision: Any) -> dict[str, Any]:
    return {"merge": {"precision": precision}}


def test_one_precision_is_no_parameter_and_a_choice_is_one_a_group(tmp_path: Path) -> None:
    fixed = _inputs(tmp_path, **_merge("int4"))
    assert fixed.plan.settings.precision == Precision(("int4",))
    assert not fixed.plan.settings.categories

    searched = _inputs(tmp_path, **_merge({"choose": ["bfloat16", "int4"], "groups": 3}))
    names = ["precision_0", "precision_1", "precision_2"]
    assert searched.plan.settings.categories == {name: ["bfloat16", "int4"] for name in names}
    assert searched.plan.parameter_names[:3] == names


def test_without_a_precision_the_fingerprint_is_what_it_was(tmp_path: Path) -> None:
    without = _inputs(tmp_path).settings_print()
    assert not [name for name in without if name.startswith("merge.precision")]


def test_how_it_is_rounded_is_in_the_fingerprint(tmp_path: Path) -> None:
    found = _inputs(tmp_path, **_merge("fp8")).settings_print()
    assert found["merge.precision"] == "fp8"
    assert found["merge.precision.scales"]["int4"] == [128, 64, 32]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            _merge("int3"),
            "must be one of bfloat16, fp8, int8, int4, but got 'int3'",
        ),
        (_merge(["int8", "int4"]), "write precision: {choose: [int8, int4]}"),
        (_merge({"choose": ["int4"]}), "write `merge.precision: int4` for one"),
        (_merge({"choose": []}), "two precisions at least, but got []"),
        (_merge({"choose": ["int4", "int4"]}), "must differ, but got ['int4', 'int4']"),
        (_merge({"choose": ["int8", "int4"], "groups": 0}), "groups"),
        (_merge({"choose": ["int8", "int4"], "groups": 9}), "at most the model's 8 layers"),
        (_merge("bfloat16") | {"models": {"dtype": "float32"}}, "models.dtype is float32"),
        (
            _merge({"choose": ["int8", "int4"]}) | {"sampler": {"preset": "bambo"}},
            "precisions are searched by the presets mergefront",
        ),
        (
            _merge({"choose": ["int8", "int4"]}) | {"sampler": {"startup": "sobol"}},
            "a search over precisions begins with uniform merges",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=re.escape(told)) as caught:
        _inputs(tmp_path, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", [None, "int4", {"choose": ["fp8", "int8"]}])
def test_memory_that_is_the_same_for_all_is_refused(
    tmp_path: Path, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one scale a row int8 takes what fp8 does."""
    in_rows = {**FORMATS, "int8": replace(FORMATS["int8"], groups=())}
    monkeypatch.setattr("mergefront.objectives.merging.plan.FORMATS", in_rows)
    changes = {} if precision is None else _merge(precision)
    path = write_spec(tmp_path, 4, models={"dtype": "bfloat16"}, **changes)
    path.write_text(path.read_text().replace("metric: tokens", "metric: memory"))

    with pytest.raises(SpecError, match=r"`memory` must differ .* each takes \d+ bytes"):
        check_ready(load_inputs(path))
    assert not (tmp_path / "study.db").exists()


def test_memory_is_of_no_task(tmp_path: Path) -> None:
    path = write_spec(tmp_path, 4)
    path.write_text(path.read_text().replace("metric: tokens", "metric: memory/demo"))
    with pytest.raises(SpecError, match="'memory/demo': a model has one size in all tasks; write"):
        load_inputs(path)


@pytest.mark.parametrize(
    ("limit", "told"),
    [
        ("memory <= 100", "`memory <= 100`, but the smallest takes 275584 bytes"),
        ("memory >= 1e9", "`memory >= 1e+09`, but the largest takes 998528 bytes"),
        ("memory <= 275584", None),
    ],
)
def test_a_limit_of_memory_that_nothing_keeps_to_is_refused(
    tmp_path: Path, limit: str, told: str | None
) -> None:
    path = write_spec(
        tmp_path,
        4,
        models={"dtype": "bfloat16"},
        **_merge({"choose": ["bfloat16", "int4"]}),
    )
    content = yaml.safe_load(path.read_text())
    content["constraints"] = [limit]
    path.write_text(yaml.safe_dump(content))
    if told is None:
        check_ready(load_inputs(path))
    else:
        with pytest.raises(SpecError, match=re.escape(told)):
            check_ready(load_inputs(path))
