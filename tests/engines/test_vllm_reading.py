"""Texts that vLLM reads as its parents do, and answers that the base judges in the same engine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import vllm_on_cpu  # noqa: F401 - sets the environment, or skips
from backend_suite import MODELS, become
from mergefront.errors import EvaluationError
from mergefront.examples.demo import QUESTIONS
from mergefront.objectives.evaluation.backends import likelihood
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_backend import VllmBackend
from mergefront.objectives.evaluation.backends.vllm_memory import EngineSettings
from mergefront.objectives.evaluation.backends.vllm_swap import reading
from mergefront.study import StudySpec
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import read_json_lines, write_spec

# Digits and letters are tokens: the last two are of one and of two.
TEXTS = [line["prompt"] for line in read_json_lines(QUESTIONS / "search.jsonl")[:12]] + ["4", "4a"]
ENGINE = {"max_model_len": 120, "max_num_seqs": 16}


@pytest.fixture(scope="module", params=[1, 2])
def backend(request: pytest.FixtureRequest) -> Iterator[VllmBackend]:
    backend = VllmBackend(EngineSettings(tensor_parallel_size=request.param))
    backend.load(MODELS)
    yield backend
    backend.close()


def test_a_parent_is_no_distance_from_itself_and_the_candidate_is_back(
    backend: VllmBackend,
) -> None:
    for weight, near, far in ((0.0, 0, 1), (1.0, 1, 0)):
        become(backend, weight)
        before = backend.checksum()
        found = backend.read(TEXTS, (0, 1))
        assert {each.divergences[near] for each in found} == {0.0}
        assert min(each.divergences[far] for each in found) > 0
        assert backend.checksum() == before


@pytest.mark.parametrize("window", [2048, 5])
def test_divergences_are_those_of_transformers(
    backend: VllmBackend,
    reference: TransformersBackend,
    window: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(likelihood, "TEXT_WINDOW", window)
    monkeypatch.setattr(reading, "_MOST_LOGITS", 2000)  # several batches
    for weight in (0.3, 0.7):
        become(backend, weight)
        become(reference, weight)
        ours, theirs = (each.read(TEXTS, (0, 1)) for each in (backend, reference))
        for one, other in zip(ours, theirs, strict=True):
            assert one.n_tokens == other.n_tokens
            assert one.total == pytest.approx(other.total, abs=1e-3)
            assert one.divergences == pytest.approx(other.divergences, rel=1e-3, abs=1e-5)


def test_distributions_that_vllm_does_not_use_are_refused(
    backend: VllmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(backend, 0.4)
    before = backend.checksum()
    with monkeypatch.context() as patch:
        patch.setattr(reading, "_FEWEST_TOKENS", 0)  # of a single row nothing is heard
        with pytest.raises(EvaluationError, match=r"A divergence needs the distributions"):
            backend.read(["4"], (0,))
    assert backend.checksum() == before
    assert backend.read(["4"], (0,))[0].divergences[0] > 0


def _values(folder: Path, backend: str) -> list[tuple[Any, Any]]:
    """Measure four models by a judge and by how much they forget."""
    folder.mkdir()
    path = write_spec(folder, 16, study={"trials": 4}, sampler={"preset": "random"})
    content = yaml.safe_load(path.read_text())
    rows = read_json_lines(folder / "search.jsonl")
    numbered = ({**row, "n": index} for index, row in enumerate(rows))
    (folder / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in numbered))
    (folder / "t.txt").write_text("\n\n".join(row["prompt"] for row in rows))
    judge = {"prompt": "1a+{n}b+{response}?", "max_new_tokens": 8}
    asked = {"name": "demo", "files": {"search": "q.jsonl"}, "scorer": "judge", "judge": judge}
    content["evaluation"] |= {
        "max_new_tokens": 40,
        "tasks": [asked, {"name": "general", "texts": {"search": "t.txt"}}],
        "backend": backend,
        **({"engine": ENGINE} if backend == "vllm" else {}),
    }
    content["constraints"] = ["kl/base <= 0.1"]
    path.write_text(yaml.safe_dump(content))
    run(load_inputs(path))
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    return [(trial.values, trial.constraints) for trial in trials]


def test_a_study_judges_and_measures_forgetting_as_with_transformers(tmp_path: Path) -> None:
    ours, theirs = (_values(tmp_path / name, name) for name in ("vllm", "transformers"))
    assert [values for values, _ in ours] == [values for values, _ in theirs]
    assert len({tuple(values) for values, _ in ours}) > 1
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-3)
