"""vLLM on the demo pair: the suite of all backends, the same answers as transformers, the traps.

Run by `make test-vllm`, in an environment of its own.
"""

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vllm_on_cpu  # noqa: F401 - sets the environment, or skips
from backend_suite import LONG, MODELS, PLAN, PROMPTS, BackendSuite, become
from mergefront.errors import EngineError
from mergefront.examples.demo import QUESTIONS
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_backend import VllmBackend
from mergefront.objectives.evaluation.backends.vllm_worker import MergeExtension
from mergefront.objectives.merging import stream

LINES = (QUESTIONS / "search.jsonl").read_text().splitlines()[:100]
QUESTIONS_ASKED = [json.loads(line)["prompt"] for line in LINES]


@pytest.fixture(scope="module")
def backend() -> Iterator[VllmBackend]:
    backend = VllmBackend()
    backend.load(MODELS)
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def reference() -> Iterator[TransformersBackend]:
    backend = TransformersBackend(device="cpu")
    backend.load(MODELS)
    yield backend
    backend.close()


class TestVllmBackend(BackendSuite):
    """The suite of all backends."""


def _layerwise(seed: int) -> dict[str, float]:
    return {name: ((7 * i + seed) % 10) / 9 for i, name in enumerate(PLAN.parameter_names)}


CANDIDATES = [
    PLAN.uniform(0.0),
    PLAN.uniform(1.0),
    PLAN.uniform(0.5),
    _layerwise(1),
    _layerwise(4),
    PLAN.uniform(0.0),
]


def test_every_answer_is_that_of_transformers(
    backend: VllmBackend, reference: TransformersBackend
) -> None:
    for params in CANDIDATES:
        groups = PLAN.group_weights(params)
        backend.apply(groups)
        reference.apply(groups)
        ours, theirs = (b.generate(QUESTIONS_ASKED, LONG) for b in (backend, reference))
        assert ours == theirs


# Longer than a block of the prefix cache (32 tokens): shorter prompts are never remembered.
LONG_PROMPTS = [f"{'1a+1b+1c+1d+' * 5}{digit}e+1?" for digit in range(5)]


def test_answers_of_the_old_weights_are_not_remembered(backend: VllmBackend) -> None:
    become(backend, 1.0)
    expected = backend.generate(LONG_PROMPTS, LONG)
    become(backend, 0.0)
    backend.generate(LONG_PROMPTS, LONG)
    become(backend, 1.0)
    assert backend.generate(LONG_PROMPTS, LONG) == expected


def test_a_prefix_cache_that_is_kept_mixes_two_models(
    backend: VllmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why the cache is emptied: vLLM does not do it, and nothing says that answers are wrong."""
    become(backend, 1.0)
    expected = backend.generate(LONG_PROMPTS, LONG)
    become(backend, 0.0)
    backend.generate(LONG_PROMPTS, LONG)
    with monkeypatch.context() as patch:
        patch.setattr(backend._engine, "reset_prefix_cache", lambda: None)
        become(backend, 1.0)
    assert backend.generate(LONG_PROMPTS, LONG) != expected


def test_the_models_own_loader_cannot_swap_on_a_cpu(backend: VllmBackend) -> None:
    """Why tensors go through `reload_weights`: packing has freed what the loader writes to."""

    def load(worker: Any) -> None:
        recipe = worker._mergefront_recipe
        weights = PLAN.group_weights(PLAN.uniform(1.0))
        worker.model_runner.get_model().load_weights(stream(recipe, weights))

    become(backend, 1.0)
    expected = backend.generate(PROMPTS, LONG)
    become(backend, 0.0)
    core = backend._engine.llm_engine.engine_core.engine_core
    try:
        load(core.model_executor.driver_worker.worker)
    except Exception:
        backend._recycled("load_weights", RuntimeError("as expected"))
    else:
        backend._engine.reset_prefix_cache()
        assert backend.generate(PROMPTS, LONG) != expected


def test_a_failed_swap_starts_the_engine_again(
    backend: VllmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(backend, 0.4)
    expected = backend.generate(PROMPTS, LONG)

    def broken(self: Any, groups: Any) -> float:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(MergeExtension, "mergefront_apply", broken)
        with pytest.raises(EngineError, match=r"out of memory.*started again"):
            become(backend, 0.7)
    become(backend, 0.4)
    assert backend.generate(PROMPTS, LONG) == expected


def test_a_tensor_that_does_not_arrive_is_noticed(
    backend: VllmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    reload = MergeExtension.mergefront_apply.__globals__["_noting"]

    def lossy(tensors: Any, sent: Any) -> Iterator[tuple[str, Any]]:
        for name, tensor in reload(tensors, sent):
            yield name, tensor + 1.0 if "layers.3.input_layernorm" in name else tensor

    with monkeypatch.context() as patch:
        patch.setattr("mergefront.objectives.evaluation.backends.vllm_worker._noting", lossy)
        with pytest.raises(EngineError, match=r"layers\.3\.input_layernorm.* differs"):
            become(backend, 0.5)


def test_two_hundred_swaps_leak_nothing_and_end_where_they_should(backend: VllmBackend) -> None:
    become(backend, 0.25)
    expected = backend.checksum()
    for index in range(20):
        become(backend, (index % 7) / 6)
    before = _resident_bytes()
    for index in range(200):
        become(backend, (index % 11) / 10)
    assert _resident_bytes() - before < 30 * 2**20
    become(backend, 0.25)
    assert backend.checksum() == expected


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
