"""vLLM: weights change inside the running engine, no checkpoint is written, nothing restarts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ....errors import EngineError, EvaluationError
from .backend import Completion, Conversation, Finished, Models, Sampling
from .chat import Chat, check_length
from .likelihood import (
    Likelihood,
    Pair,
    Reading,
    Window,
    added,
    text_window,
    text_windows,
    together,
    windows,
)
from .vllm_memory import EngineSettings, check_memory, longest_read, with_room_for_parents
from .vllm_swap import Engine, Repeatability, SelfTest
from .vllm_swap.engine import gpu_bytes, prepare
from .vllm_swap.reading import likelihood_in, padded, readings, settings_to_read
from .vllm_swap.self_test import plain
from .vllm_swap.version import check_version


class VllmBackend:
    """One vLLM engine whose weights are overwritten by merges.

    At its start a fresh engine of every parent says what its tensors and its decoded answers are;
    then each parent is swapped in, through every way of swapping, and must be the same. After
    each swap the prefix cache is emptied: what it holds was computed with the old weights.

    Args:
        settings: Of the engine. Defaults to None: `EngineSettings()`.
    """

    def __init__(self, settings: EngineSettings | None = None) -> None:
        self.settings = settings or EngineSettings()
        self._engine: Engine | None = None
        self._overwrites = False
        self._weights: Mapping[str, Sequence[float]] | None = None

    def load(self, models: Models) -> None:
        """Start the engine with the base, open the parents, and test the swap.

        Raises:
            MissingExtraError: If vLLM is not installed, or in a version that was not tested.
            EvaluationError: If the model and one answer do not fit the GPUs.
            EngineError: If a parent swapped in is not the parent.
        """
        check_version()
        prepare(self.settings)
        total = gpu_bytes()
        check_memory(models, self.settings, total)
        self._models, self._chat = models, Chat.of(models)
        self._started_with = with_room_for_parents(models, self.settings, total)
        self._test = SelfTest(models, self._started_with, self._chat)
        self._test.start_experts()
        self._start()

    @property
    def overwrites(self) -> bool:
        """Whether swaps overwrite the kernels' tensors instead of going through the loader."""
        return self._overwrites

    @property
    def repeatability(self) -> Repeatability | None:
        """Whether one model gave one answer at the start; None before it."""
        return self._test.repeatability

    def apply(self, weights: Mapping[str, Sequence[float]]) -> float:
        """Make the engine's model the candidate; return the seconds it took.

        Raises:
            EngineError: If the swap failed. The engine has been started again with the base.
            EvaluationError: If a weight is not finite in place; the next candidate overwrites it.
        """
        engine = self._engine or self._start()
        self._weights = weights
        try:
            if not self._overwrites:
                return float(max(engine.call("mergefront_apply", plain(weights))))
            swaps = engine.call("mergefront_overwrite", plain(weights))
        except Exception as error:
            raise self._restarted("swapping", error) from error
        if reason := next((reason for _, reason in swaps if reason), ""):
            raise EvaluationError(reason)
        return float(max(seconds for seconds, _ in swaps))

    def generate(
        self,
        prompts: Sequence[str | Conversation],
        sampling: Sampling,
        finished: Finished | None = None,
        seeds: Sequence[int] = (),
    ) -> list[Completion]:
        """Answer the prompts, all at once.

        Raises:
            EvaluationError: If a prompt cannot be answered; the engine goes on.
            EngineError: If the engine failed. It has been started again with the base.
        """
        rendered = [self._chat.render(prompt, sampling.chat) for prompt in prompts]
        longest = max(map(len, rendered), default=0)
        check_length(longest, sampling.max_new_tokens, self._running.max_length)
        chosen = self._parameters(sampling, seeds or range(len(prompts)))
        outputs = self._outputs(rendered, chosen)
        completions = [
            self._chat.completion(output.outputs[0].token_ids, sampling, ids, _seconds(output))
            for output, ids in zip(outputs, rendered, strict=True)
        ]
        for index, completion in enumerate(completions if finished else ()):
            finished(index, completion)  # type: ignore[misc]
        return completions

    def loglikelihood(
        self, pairs: Sequence[Pair], finished: Callable[[int, Likelihood], None] | None = None
    ) -> list[Likelihood]:
        """Return how probable each continuation is, by vLLM's probabilities of prompts' tokens."""
        asked = windows(self._chat.tokenizer, pairs, self._longest_read)
        results = self._likelihoods(asked, len(pairs))
        for index, likelihood in enumerate(results if finished else ()):
            finished(index, likelihood)  # type: ignore[misc]
        return results

    def read(
        self,
        texts: Sequence[str],
        parents: Sequence[int] = (),
        finished: Callable[[int, Reading], None] | None = None,
    ) -> list[Reading]:
        """Return how probable whole texts are, and how far the model is from its parents.

        Raises:
            EvaluationError: If vLLM does not let its distributions be heard.
            EngineError: If the engine failed. It has been started again with the base.
        """
        asked = text_windows(self._chat.tokenizer, texts, self.text_window)
        if parents:
            results = self._compared(asked, parents, len(texts))
        else:
            found = self._likelihoods(asked, len(texts))
            results = [Reading(each.total, each.n_tokens) for each in found]
        for index, reading in enumerate(results if finished else ()):
            finished(index, reading)  # type: ignore[misc]
        return results

    def _compared(self, asked: Sequence[Window], parents: Sequence[int], n: int) -> list[Reading]:
        """Return the readings of `n` texts, with divergences from parents."""
        parts: list[list[Reading]] = [[] for _ in range(n)]
        steps = (self._become, self._likelihood_of)
        try:
            for window, reading in readings(self._running, asked, parents, *steps):
                parts[window.pair].append(reading)
        except EngineError:
            raise
        except EvaluationError:
            self._become(None)
            raise
        except Exception as error:
            raise self._restarted("reading as its parents", error) from error
        return [together(part) for part in parts]

    def _become(self, parent: int | None) -> None:
        """Make the engine's model a parent, or the candidate again."""
        if parent is None and self._weights is not None:
            self.apply(self._weights)
        else:
            self._running.call("mergefront_become", parent or 0, self._overwrites)

    def _likelihood_of(self, window: Window) -> Likelihood:
        output = self._outputs([padded(window)], settings_to_read())[0]
        return likelihood_in(window, output)

    @property
    def text_window(self) -> int:
        """Tokens of a text that are read at once."""
        return text_window(self._longest_read)

    @property
    def _longest_read(self) -> int:
        return longest_read(self._running.max_length)

    def _likelihoods(self, asked: Sequence[Window], n: int) -> list[Likelihood]:
        """Return the likelihoods of `n` texts from their windows."""
        prompts = [window.ids for window in asked]
        outputs = self._outputs(prompts, settings_to_read()) if asked else []
        parts: list[list[Likelihood]] = [[] for _ in range(n)]
        for window, output in zip(asked, outputs, strict=True):
            parts[window.pair].append(likelihood_in(window, output))
        return [added(part) for part in parts]

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
            # The study's stop tokens and no others, whatever the engine thinks of its checkpoint.
            "stop_token_ids": sorted(self._chat.stop_tokens),
            "ignore_eos": True,
            "stop": list(sampling.stop),
            "detokenize": bool(sampling.stop),
            "skip_special_tokens": False,  # a stop text may be one
        }
        if not sampling.is_random:
            return SamplingParams(**common)
        return [SamplingParams(seed=seed, **common) for seed in seeds]

    def checksum(self) -> str:
        """Return a hash of the weights that the engine would use now."""
        return self._test.checksum(self._running)

    def close(self) -> None:
        """End the engine."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()

    @property
    def _running(self) -> Engine:
        if self._engine is None:
            raise EngineError("The engine is not running: load the models first.")
        return self._engine

    def _start(self) -> Engine:
        """Start the engine with the base and test it."""
        self._weights = None
        engine = Engine(self._models.base, self._models.dtype, self._started_with)
        try:
            self._overwrites = self._test.run(engine)
        except BaseException:
            engine.close()
            raise
        self._engine = engine
        return engine

    def _outputs(self, prompts: Sequence[Sequence[int]], sampling: Any) -> list[Any]:
        """Answer rendered prompts.

        Raises:
            EvaluationError: If vLLM refused a prompt before it answered anything.
            EngineError: If it failed later on. It has been started again with the base.
        """
        engine = self._running
        try:
            return engine.generate(prompts, sampling)
        except Exception as error:
            if not engine.is_busy:
                raise EvaluationError(f"vLLM does not answer this prompt: {error}") from error
            raise self._restarted("answering", error) from error

    def _restarted(self, what: str, error: Exception) -> EngineError:
        """Start a new engine: an update that was cut off leaves no model at all."""
        self.close()
        try:
            self._start()
        except Exception as again:
            return EngineError(
                f"The engine failed in {what} ({error}), and cannot be started again: {again}"
            )
        return EngineError(f"The engine failed in {what} ({error}) and was started again.")


def _seconds(output: Any) -> float:
    """Return the seconds from a request's first to its last moment in a batch."""
    metrics = output.metrics
    return float(metrics.last_token_ts - metrics.scheduled_ts)
