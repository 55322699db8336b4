"""What a study over several operators measures first."""

from pathlib import Path
from typing import Any

import pytest

from mergefront.study.first_trials import first_trials
from mergefront.study.spec.inputs import load_inputs
from small_study import write_spec

_OPERATORS = ["linear", *({"name": name, "density": 0.5} for name in ("ties", "dare_linear"))]


def _uniform(tmp_path: Path, n_operators: int, n_first: int, **merge: Any) -> list[dict[str, Any]]:
    path = write_spec(
        tmp_path,
        study={"trials": 60},
        merge={"operator": _OPERATORS[:n_operators], **merge},
        sampler={"n_startup_trials": n_first},
    )
    inputs = load_inputs(path)
    trials = first_trials(inputs.spec, inputs.plan)
    return [trial.params for trial in trials if trial.user_attrs["phase"] == "uniform"]


@pytest.mark.parametrize("n_operators", [2, 3])
@pytest.mark.parametrize("n_first", [8, 11, 20])
def test_no_merge_comes_first_twice(tmp_path: Path, n_operators: int, n_first: int) -> None:
    found = _uniform(tmp_path, n_operators, n_first)
    merges = [(params["operator"], params["layer_000"]) for params in found]
    assert len(merges) == n_first - 2
    assert len({*merges}) == len(merges)


def test_operators_and_precisions_are_not_tied_to_each_other(tmp_path: Path) -> None:
    found = _uniform(tmp_path, 3, 11, precision={"choose": ["fp8", "int8", "int4"]})
    assert len({(params["operator"], params["precision_0"]) for params in found}) == 9


def test_levels_and_precisions_are_not_tied_to_each_other(tmp_path: Path) -> None:
    found = _uniform(tmp_path, 3, 20, precision={"choose": ["fp8", "int8", "int4"]})
    pairs = {(params["layer_000"], params["precision_0"]) for params in found}
    assert len(pairs) >= 9
    assert len({(p["operator"], p["layer_000"], p["precision_0"]) for p in found}) == len(found)


def test_no_merge_comes_first_under_two_names(tmp_path: Path) -> None:
    """TIES of one expert is the linear merge at density 1, which is its upper bound here."""
    found = _uniform(tmp_path, 1, 8, operator=["linear", "ties"], density=[0.3, 1.0])
    assert {params["density"] for params in found if params["operator"] == "ties"} == {0.65}
