"""How vLLM holds weights: tied, packed as on CPUs, plain as on GPUs."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import vllm_on_cpu  # noqa: F401 - sets the environment, or skips
from backend_suite import LONG, PROMPTS
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint, is_tied
from mergefront.objectives.evaluation import Backend, Completion, Models
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_backend import VllmBackend
from mergefront.objectives.merging import MergePlan, MergeSettings
from plain_layers import plain_layers

SETTINGS = MergeSettings(embeddings="search", head="search")


def _tie(source: Path, target: Path) -> Path:
    """Write a copy whose output matrix is its embeddings; its answers mean nothing."""
    shutil.copytree(source, target)
    tensors = load_file(source / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors.pop("lm_head.weight")
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    return target


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("tied")
    base, expert = _tie(BASE, folder / "base"), _tie(EXPERT, folder / "expert")
    return Models(base, (expert,), "float32", SETTINGS)


@pytest.fixture(scope="module")
def backend(models: Models) -> Iterator[VllmBackend]:
    backend = VllmBackend()
    backend.load(models)
    yield backend
    backend.close()


def _answers(backend: Backend, models: Models, weight: float) -> list[Completion]:
    checkpoint = Checkpoint(models.base)
    plan = MergePlan(checkpoint.layout, SETTINGS, is_tied(checkpoint))
    backend.apply(plan.group_weights(plan.uniform(weight)))
    return backend.generate(PROMPTS, LONG)


def test_the_head_moves_with_the_embeddings(backend: VllmBackend, models: Models) -> None:
    reference = TransformersBackend(device="cpu")
    reference.load(models)
    for weight in (0.0, 1.0, 0.5, 0.0):
        assert _answers(backend, models, weight) == _answers(reference, models, weight)


def test_left_alone_the_packed_copy_answers_for_the_old_weights(
    backend: VllmBackend, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = _answers(backend, models, 1.0)
    _answers(backend, models, 0.0)
    worker = "mergefront.objectives.evaluation.backends.vllm_worker"
    with monkeypatch.context() as patch:
        patch.setattr(f"{worker}.pack_again", lambda model, tied: None)
        assert _answers(backend, models, 1.0) != expected
    assert _answers(backend, models, 1.0) == expected


@pytest.fixture
def unpacked() -> Iterator[None]:
    with plain_layers():
        yield


@pytest.mark.usefixtures("unpacked")
@pytest.mark.parametrize("tied", [False, True])
def test_unpacked_weights_are_overwritten_in_place(tied: bool, models: Models) -> None:
    models = models if tied else Models(BASE, (EXPERT,), "float32", SETTINGS)
    backend, reference = VllmBackend(), TransformersBackend(device="cpu")
    backend.load(models)
    reference.load(models)
    assert backend.overwrites
    assert backend._engine is not None
    core = backend._engine.llm.llm_engine.engine_core.engine_core
    model = core.model_executor.driver_worker.worker.model_runner.get_model()
    addresses = [p.data_ptr() for p in model.parameters()]
    for weight in (0.0, 1.0, 0.37, 0.0):
        assert _answers(backend, models, weight) == _answers(reference, models, weight)
    assert [p.data_ptr() for p in model.parameters()] == addresses
    backend.close()


def test_packed_weights_are_not(backend: VllmBackend) -> None:
    assert not backend.overwrites
