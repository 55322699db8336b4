"""vLLM's engine with our methods in its workers."""

import gc
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .....errors import EngineError, EvaluationError
from ..vllm_memory import EngineSettings
from .canary import Hashes

_EXTENSION = "mergefront.objectives.evaluation.backends.vllm_worker.MergeExtension"


class Engine:
    """One running engine.

    Args:
        model: Directory of the checkpoint that it starts with.
        dtype: Name of the torch dtype.
        settings: Of the engine.
    """

    def __init__(self, model: Path, dtype: str, settings: EngineSettings) -> None:
        self.llm = _start(model, dtype, settings)

    @property
    def max_length(self) -> int:
        """Longest prompt and answer, in tokens."""
        return int(self.llm.llm_engine.model_config.max_model_len)

    @property
    def n_words(self) -> int:
        """Size of the vocabulary."""
        return int(self.llm.llm_engine.model_config.get_vocab_size())

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every worker; return one result a rank.

        The prefix cache is emptied: vLLM does not do it, and answers would mix two models.

        Raises:
            EngineError: If the cache was not emptied.
        """
        results: list[Any] = self.llm.collective_rpc(method, args=arguments)
        if self.llm.reset_prefix_cache() is not True:
            raise EngineError(
                f"The prefix cache must be empty after {method!r}, but vLLM kept some of it: "
                "answers would mix two models. Nothing else may use the engine meanwhile."
            )
        return results

    def hashes(self) -> list[Hashes]:
        """Return hashes of all tensors, one mapping a rank."""
        return self.call("mergefront_hashes")

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Any) -> list[Any]:
        """Answer prompts, all at once; return vLLM's outputs in their order."""
        inputs = [{"prompt_token_ids": list(ids)} for ids in prompts]
        return list(self.llm.generate(inputs, sampling, use_tqdm=False))

    @property
    def is_busy(self) -> bool:
        """Whether it was interrupted while it answered."""
        return bool(self.llm.llm_engine.has_unfinished_requests())

    def close(self) -> None:
        """End it, and give its memory back."""
        self.llm.llm_engine.engine_core.shutdown()
        del self.llm
        gc.collect()  # an engine in this process leaves its memory to the collector


def prepare(settings: EngineSettings) -> None:
    """Set what vLLM reads from the environment, before its kernels are imported.

    Raises:
        EvaluationError: If something is asked for that CPUs cannot do.
    """
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if not settings.batch_invariant:
        return
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        raise EvaluationError(
            "evaluation.engine.batch_invariant needs a GPU, but vLLM runs on a CPU here. "
            "Leave it out."
        )
    os.environ["VLLM_BATCH_INVARIANT"] = "1"


def _start(model: Path, dtype: str, settings: EngineSettings) -> Any:
    """Start vLLM with a checkpoint's weights and our methods in its workers."""
    from vllm import LLM
    from vllm.platforms import current_platform

    # Captured graphs are a GPU's; the CPU's attention wants blocks of 32.
    on_cpu = current_platform.is_cpu()
    options: dict[str, Any] = {"enforce_eager": True, "block_size": 32} if on_cpu else {}
    given = asdict(settings)
    del given["batch_invariant"]  # in the environment
    return LLM(
        model=str(model),
        dtype=dtype,
        load_format="safetensors",
        generation_config="vllm",
        seed=0,
        disable_log_stats=False,  # requests carry their times
        worker_extension_cls=_EXTENSION,
        **given,
        **options,
    )


def gpu_bytes() -> int | None:
    """Return a GPU's memory without starting a context on it; None for a CPU."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return None
    return int(current_platform.get_device_total_memory())
