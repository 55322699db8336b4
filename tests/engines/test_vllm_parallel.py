"""Two ranks in processes of their own, as on two GPUs; many swaps; a rank that is killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import Mock

import pytest

import vllm_on_cpu  # noqa: F401 - sets the environment, or skips
from backend_suite import LONG, MODELS, PROMPTS, BackendSuite, become
from mergefront.errors import EngineError
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_backend import VllmBackend
from mergefront.objectives.evaluation.backends.vllm_memory import EngineSettings


@pytest.fixture(scope="module")
def backend() -> Iterator[VllmBackend]:
    backend = VllmBackend(EngineSettings(tensor_parallel_size=2))
    backend.load(MODELS)
    yield backend
    backend.close()


class TestTwoRanks(BackendSuite):
    """The suite of all backends."""


def test_two_ranks_answer_as_transformers(backend: VllmBackend) -> None:
    reference = TransformersBackend(device="cpu")
    reference.load(MODELS)
    for weight in (0.0, 1.0, 0.6):
        become(backend, weight)
        become(reference, weight)
        assert backend.generate(PROMPTS, LONG) == reference.generate(PROMPTS, LONG)


def test_a_rank_killed_in_the_middle_of_a_swap_costs_one_restart(backend: VllmBackend) -> None:
    become(backend, 0.4)
    expected = backend.generate(PROMPTS, LONG)
    assert backend._engine is not None
    engine = backend._engine
    workers = engine.llm.llm_engine.engine_core.engine_core.model_executor.workers
    victim = workers[1].proc.pid
    swapping = threading.Event()

    def kill() -> None:
        swapping.wait()
        time.sleep(0.05)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(EngineError, match=r"failed in swapping.*was started again"):
        for index in range(1000):
            swapping.set()
            become(backend, (index % 11) / 10)
    killer.join()
    assert backend._engine is not engine
    become(backend, 0.4)
    assert backend.generate(PROMPTS, LONG) == expected


def test_a_rank_killed_while_texts_are_read_costs_one_restart(
    backend: VllmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(backend, 0.4)
    expected = backend.read(PROMPTS, (0, 1))
    assert backend._engine is not None
    workers = backend._engine.llm.llm_engine.engine_core.engine_core.model_executor.workers
    started = Mock(side_effect=backend._start)
    monkeypatch.setattr(backend, "_start", started)
    killer = threading.Timer(0.5, os.kill, (workers[1].proc.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(EngineError, match="was started again") as caught:
        for _ in range(1000):
            backend.read(PROMPTS, (0, 1))
    killer.join()
    assert "no attribute" not in str(caught.value) and started.call_count == 1
    become(backend, 0.4)
    assert backend.read(PROMPTS, (0, 1)) == expected


def test_fifty_swaps_in_bfloat16_return_to_where_they_were() -> None:
    backend = VllmBackend()
    backend.load(replace(MODELS, dtype="bfloat16"))
    become(backend, 0.3)
    before, answers = backend.checksum(), backend.generate(PROMPTS, LONG)
    for index in range(50):
        become(backend, (index % 13) / 12)
    become(backend, 0.3)
    assert (backend.checksum(), backend.generate(PROMPTS, LONG)) == (before, answers)
    backend.close()
