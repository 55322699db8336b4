"""A whole study on vLLM."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import vllm_on_cpu  # noqa: F401 - sets the environment, or skips
from joint_study import write_joint_spec
from mergefront.study import StudySpec
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import write_spec


def _values(folder: Path, **evaluation: Any) -> list[list[float]]:
    folder.mkdir()
    path = write_spec(
        folder, study={"trials": 4}, sampler={"preset": "random"}, evaluation=evaluation
    )
    return _measured(path)


def _measured(path: Path) -> list[list[float]]:
    run(load_inputs(path))
    return [trial.values for trial in load_study(StudySpec.from_yaml(path)).get_trials()]


def test_a_study_measures_what_it_measures_with_transformers(tmp_path: Path) -> None:
    engine = {"max_model_len": 120, "max_num_seqs": 16}
    ours = _values(tmp_path / "vllm", backend="vllm", engine=engine)
    assert ours == _values(tmp_path / "transformers")
    assert len(ours) == 4


JOINT = partial(write_joint_spec, study={"trials": 12})
ROUNDED = partial(
    write_spec,
    study={"trials": 10},
    merge={"precision": {"choose": ["int8", "int4"], "groups": 2}},
)


@pytest.mark.parametrize(
    ("write", "n"), [(JOINT, 12), (ROUNDED, 10)], ids=["operators and experts", "precisions"]
)
def test_a_study_over_choices_does_so_too(
    write: Callable[..., Path], n: int, tmp_path: Path
) -> None:
    values = []
    for backend, more in (
        ("vllm", {"engine": {"max_model_len": 120, "max_num_seqs": 16}}),
        ("transformers", {}),
    ):
        folder = tmp_path / backend
        folder.mkdir()
        asked = {"sampler": {"preset": "random"}, "evaluation": {"backend": backend, **more}}
        values.append(_measured(write(folder, 8, **asked)))
    assert values[0] == values[1]
    assert len(values[0]) == n
