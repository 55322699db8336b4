"""A whole study on vLLM."""

from pathlib import Path
from typing import Any

import vllm_on_cpu  # noqa: F401 - sets the environment, or skips
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
    run(load_inputs(path))
    return [trial.values for trial in load_study(StudySpec.from_yaml(path)).get_trials()]


def test_a_study_measures_what_it_measures_with_transformers(tmp_path: Path) -> None:
    engine = {"max_model_len": 120, "max_num_seqs": 16}
    ours = _values(tmp_path / "vllm", backend="vllm", engine=engine)
    assert ours == _values(tmp_path / "transformers")
    assert len(ours) == 4
