"""vLLM on the demo pair: the suite of all backends, the same answers as transformers, the traps.

Run by `make test-vllm`, in an environment of its own.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import vllm_on_cpu  # noqa: F401 - sets the environment, or skips
from backend_suite import LONG, MODELS, PLAN, PROMPTS, BackendSuite, become
from mergefront.errors import EngineError, EvaluationError
from mergefront.examples.demo import BASE, QUESTIONS
from mergefront.objectives.checkpoints import Checkpoint, is_tied
from mergefront.objectives.evaluation import Completion, Sampling
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_backend import VllmBackend
from mergefront.objectives.evaluation.backends.vllm_memory import EngineSettings
from mergefront.objectives.evaluation.backends.vllm_swap import Engine
from mergefront.objectives.evaluation.backends.vllm_worker import MergeExtension
from mergefront.objectives.merging import MergePlan, stream

LINES = (QUESTIONS / "search.jsonl").read_text().splitlines()[:100]
QUESTIONS_ASKED = [json.loads(line)["prompt"] for line in LINES]


@pytest.fixture(scope="module")
def backend() -> Iterator[VllmBackend]:
    backend = VllmBackend()
    backend.load(MODELS)
    yield backend
    backend.close()


def _engine(backend: VllmBackend) -> Engine:
    assert backend._engine is not None
    return backend._engine


def _worker(backend: VllmBackend) -> Any:
    core = _engine(backend).llm.llm_engine.engine_core.engine_core
    return core.model_executor.driver_worker.worker


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
        patch.setattr(_engine(backend).llm, "reset_prefix_cache", lambda: True)
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
    try:
        load(_worker(backend))
    except Exception as error:
        backend._restarted("loading", error)
    else:
        _engine(backend).llm.reset_prefix_cache()
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
    """In the engine that is started again as well: the next candidate has to start another."""
    become(backend, 0.4)
    expected = backend.generate(PROMPTS, LONG)
    noting = MergeExtension.mergefront_apply.__globals__["_noting"]

    def lossy(tensors: Any, sent: Any) -> Iterator[tuple[str, Any]]:
        for name, tensor in noting(tensors, sent):
            yield name, tensor + 1.0 if "layers.3.input_layernorm" in name else tensor

    with monkeypatch.context() as patch:
        patch.setattr("mergefront.objectives.evaluation.backends.vllm_worker._noting", lossy)
        lost = r"layers\.3\.input_layernorm.* differs.*cannot be started again"
        with pytest.raises(EngineError, match=lost):
            become(backend, 0.5)
    become(backend, 0.4)
    assert backend.generate(PROMPTS, LONG) == expected


def test_a_prefix_cache_that_is_not_emptied_is_an_error(
    backend: VllmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(backend, 1.0)
    expected = backend.generate(PROMPTS, LONG)
    with monkeypatch.context() as patch:
        patch.setattr(_engine(backend).llm, "reset_prefix_cache", lambda: False)
        with pytest.raises(EngineError, match="prefix cache must be empty after"):
            become(backend, 0.0)
    become(backend, 1.0)
    assert backend.generate(PROMPTS, LONG) == expected


def test_a_prompt_that_vllm_refuses_does_not_restart_the_engine(backend: VllmBackend) -> None:
    from vllm import SamplingParams

    become(backend, 0.4)
    engine, expected = backend._engine, backend.generate(PROMPTS, LONG)
    empty: list[list[int]] = [[1, 5], []]
    outside = [[1, 5], [10**6]]
    for prompts in (empty, outside):
        with pytest.raises(EvaluationError, match="vLLM does not answer this prompt"):
            backend._outputs(prompts, SamplingParams(max_tokens=4))
    assert backend._engine is engine
    assert backend.generate(PROMPTS, LONG) == expected


def test_a_stop_text_that_is_a_special_token_ends_the_answer(
    backend: VllmBackend, reference: TransformersBackend
) -> None:
    become(backend, 1.0)
    become(reference, 1.0)
    until = Sampling(48, stop=("</think>",))
    ours = backend.generate(["1a+1b+1?"], until)
    assert ours == [Completion("<think>a1+1=2;b2+1=3;</think>", 16, "stop", 16)]
    assert ours == reference.generate(["1a+1b+1?"], until)


def test_a_drawn_answer_depends_on_its_seed_and_not_on_its_company(backend: VllmBackend) -> None:
    become(backend, 0.5)
    drawn = Sampling(24, temperature=1.0)
    seeds = [11, 12, 13, 14, 15]
    together = backend.generate(PROMPTS, drawn, seeds=seeds)
    assert backend.generate(PROMPTS[::-1], drawn, seeds=seeds[::-1]) == together[::-1]
    assert backend.generate(PROMPTS[2:3], drawn, seeds=seeds[2:3]) == together[2:3]
    assert backend.generate(PROMPTS, drawn, seeds=[s + 10 for s in seeds]) != together


def test_likelihoods_are_those_of_transformers(
    backend: VllmBackend, reference: TransformersBackend
) -> None:
    pairs = [("1a+1b+1?", "2"), ("1a+1b+1?", "<think>a1+1=2;"), ("", "cig?"), (None, "7a*7b*7c")]
    for weight in (0.0, 0.5):
        become(backend, weight)
        become(reference, weight)
        ours, theirs = backend.loglikelihood(pairs), reference.loglikelihood(pairs)
        assert [found.n_tokens for found in ours] == [found.n_tokens for found in theirs]
        assert [found.is_greedy for found in ours] == [found.is_greedy for found in theirs]
        totals = [found.total for found in theirs]
        assert [found.total for found in ours] == pytest.approx(totals, abs=1e-3)


def test_batch_invariance_is_refused_on_a_cpu(backend: VllmBackend) -> None:
    with pytest.raises(EvaluationError, match="batch_invariant needs a GPU"):
        VllmBackend(EngineSettings(batch_invariant=True)).load(MODELS)
    assert backend.repeatability is not None
    assert backend.repeatability.exact


def test_packed_weights_are_in_the_checksum(backend: VllmBackend) -> None:
    """On CPUs the parameters of packed layers are empty: their outputs are hashed instead."""
    plan = MergePlan(Checkpoint(BASE).layout, MODELS.merge, is_tied(Checkpoint(BASE)))
    names = [name for name in plan.groups if name != "layer_003"]
    one = {name: (0.0,) for name in names}
    backend.apply({**one, "layer_003": (0.5,)})
    hashes = _engine(backend).hashes()[0]
    backend.apply({**one, "layer_003": (0.25,)})
    again = _engine(backend).hashes()[0]
    differing = {name for name in hashes if hashes[name] != again[name]}
    assert any("layers.3.mlp.down_proj" in name for name in differing)
    assert not any("layers.2." in name for name in differing)


def test_two_hundred_swaps_leak_nothing_and_end_where_they_should(backend: VllmBackend) -> None:
    become(backend, 0.25)
    expected = backend.checksum()
    logging.disable(logging.CRITICAL)  # pytest keeps every record, with the tensors that it names
    taken = [_bytes_after(backend, n_swaps) for n_swaps in (20, 100, 100)]
    logging.disable(logging.NOTSET)
    # A leak takes memory every time; what else the process does may take some once.
    assert min(taken[1] - taken[0], taken[2] - taken[1]) < 15 * 2**20
    become(backend, 0.25)
    assert backend.checksum() == expected


def _bytes_after(backend: VllmBackend, n_swaps: int) -> int:
    """Return the memory of the process's own, files that it reads left out."""
    for index in range(n_swaps):
        become(backend, (index % 11) / 10)
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])
