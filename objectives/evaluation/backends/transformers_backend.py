"""The reference engine: a transformers model whose parameters are overwritten in place."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....errors import EvaluationError, LayoutError
from ...checkpoints import Checkpoint, open_expert, tensor_table
from ...checkpoints.configs import positions_of
from ...merging import MergePlan, ModuleSink, check_loaded, check_operator_fits
from ...merging.merger import checksum
from .backend import Completion, Conversation, Finished, Models, Sampling
from .chat import Chat, check_length
from .continuous_batching import Answering, Rows, depends_on_length, fits
from .drawing import Chooser, Draws, one_hot
from .likelihood import (
    Likelihood,
    Pair,
    Reading,
    added,
    measured,
    readings,
    text_window,
    text_windows,
    together,
    windows,
)
from .loading import default_device, load_expert, load_model
from .memory import BatchSize, Room


class TransformersBackend:
    """Batched generation with in-place merges.

    An answer that ends makes room for the next question, where the model has plain causal
    attention; other models keep a batch until its longest answer ends.

    Memory: the live model, a copy of the base, and every expert, all in `Models.dtype`; keys and
    values of `batch_size` answers.

    Args:
        batch_size: Answers generated together; `auto` tries many, and fewer where memory is short.
        device: A torch device; by default the first GPU, else the CPU.
    """

    def __init__(self, batch_size: BatchSize = 64, device: str | None = None) -> None:
        self.device = device or default_device()
        self._room = Room(batch_size, self.device)
        self._rows: Rows | None = None
        self._model: Any = None
        self._weights: Mapping[str, Sequence[float]] | None = None

    def load(self, models: Models) -> None:
        """Load the parents and the base's tokenizer."""
        self._chat = Chat.of(models)
        self._model = load_model(models.base, models.dtype, self.device)
        self._model.generation_config = self._greedy_config()
        base = Checkpoint(models.base)
        check_operator_fits(base, models.merge)
        check_loaded(self._model, base, base)
        experts = [self._load_expert(path, base, models.dtype) for path in models.experts]
        table = tensor_table(base)
        self._sink = ModuleSink(self._model, experts, models.merge, table.tied, table)
        self._rows = None

    def _load_expert(self, directory: Path, base: Checkpoint, dtype: str) -> Any:
        expert = load_expert(directory, base.directory, dtype, self.device)
        check_loaded(expert, open_expert(directory, base), base)
        return expert

    @property
    def batch_size(self) -> int:
        """Answers generated together, as far as memory has allowed."""
        return self._room.n

    @property
    def plan(self) -> MergePlan:
        """The search variables of the loaded models."""
        return self._sink.plan

    def apply(self, weights: Mapping[str, Sequence[float]]) -> float:
        """Overwrite the live parameters with the candidate; return the seconds it took.

        Raises:
            EvaluationError: If a weight is not finite; the next candidate overwrites all of them.
        """
        start = time.perf_counter()
        self._weights = weights
        try:
            self._sink.write(weights)
        except LayoutError as error:
            raise EvaluationError(str(error)) from error
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def generate(
        self,
        prompts: Sequence[str | Conversation],
        sampling: Sampling,
        finished: Finished | None = None,
        seeds: Sequence[int] = (),
    ) -> list[Completion]:
        """Answer the prompts, those of similar length together.

        Raises:
            EvaluationError: If a prompt and its answer do not fit the model.
        """
        rendered = [self._chat.render(prompt, sampling.chat) for prompt in prompts]
        longest = max(map(len, rendered), default=0)
        check_length(longest, sampling.max_new_tokens, self._n_positions)
        completions: dict[int, Completion] = {}

        def keep(answering: Answering) -> None:
            made = (answering.ids, sampling, answering.prompt, answering.seconds)
            completion = self._chat.completion(*made)
            completions[answering.index] = completion
            if finished is not None:
                finished(answering.index, completion)

        chooser, seeds = Chooser(sampling), seeds or range(len(prompts))
        while left := [i for i in range(len(prompts)) if i not in completions]:

            def placed(answering: Answering, left: Sequence[int] = left) -> None:
                keep(replace(answering, index=left[answering.index]))

            with self._room.trying():
                asked = [rendered[i] for i in left]
                self._answer(asked, chooser, [seeds[i] for i in left], placed)
        return [completions[i] for i in range(len(prompts))]

    def _answer(
        self,
        rendered: list[list[int]],
        chooser: Chooser,
        seeds: Sequence[int],
        finished: Callable[[Answering], None],
    ) -> None:
        if not fits(self._model):
            self._answer_in_batches(rendered, chooser, seeds, finished)
            return
        if self._rows is None or self._rows.n_rows != self._room.n:
            self._rows = None  # before the new ones take memory
            self._rows = Rows(self._model, self._room.n)
        is_over = partial(self._chat.is_over, stop=chooser.sampling.stop)
        limits = (chooser.sampling.max_new_tokens, is_over, finished)
        try:
            self._rows.answer(rendered, *limits, chooser, seeds)
        except EvaluationError:
            self._rows = None  # NaN in their memory would outlive any mask
            raise

    def loglikelihood(
        self, pairs: Sequence[Pair], finished: Callable[[int, Likelihood], None] | None = None
    ) -> list[Likelihood]:
        """Return how probable each continuation is."""
        asked = windows(self._chat.tokenizer, pairs, self._n_positions)
        run = partial(measured, self._logits, n_words=self._n_words, device=self.device)
        return self._room.joined(asked, len(pairs), run, added, finished)

    def read(
        self,
        texts: Sequence[str],
        parents: Sequence[int] = (),
        finished: Callable[[int, Reading], None] | None = None,
    ) -> list[Reading]:
        """Return how probable whole texts are, and how far the model is from its parents."""
        asked = text_windows(self._chat.tokenizer, texts, self.text_window)
        others = {parent: partial(self._parents_logits, parent) for parent in parents}
        run = partial(readings, self._logits, others, n_words=self._n_words, device=self.device)
        return self._room.joined(asked, len(texts), run, together, finished)

    @property
    def text_window(self) -> int:
        """Tokens of a text that are read at once."""
        return text_window(self._n_positions)

    @property
    def _n_words(self) -> int:
        return int(self._model.config.get_text_config().vocab_size)

    @property
    def _n_positions(self) -> int:
        return positions_of(self._model.config.get_text_config()) or sys.maxsize

    def _parents_logits(self, parent: int, ids: Tensor, wanted: Tensor) -> Tensor:
        """Return a parent's logits, from the live model's memory: equal weights, equal bits."""
        try:
            self._sink.write_parent(parent)
            return self._logits(ids, wanted)
        finally:
            self._restore()

    def _restore(self) -> None:
        """Write the candidate again; before there was one, the live model is the base."""
        if self._weights is None:
            self._sink.write_parent(0)
        else:
            self._sink.write(self._weights)

    def _logits(self, ids: Tensor, wanted: Tensor) -> Tensor:
        logits: Tensor = self._model(input_ids=ids, use_cache=False, logits_to_keep=wanted).logits
        return logits

    def checksum(self) -> str:
        """Return a SHA-256 over the live tensors."""
        return checksum(sorted(self._sink.parameters.items()))

    def close(self) -> None:
        """Release the models."""
        self._model = self._rows = None
        self._weights = None
        del self._sink, self._chat

    def _greedy_config(self) -> Any:
        """Return a configuration that leaves nothing to the checkpoint's own sampling defaults."""
        from transformers import GenerationConfig

        return GenerationConfig(
            do_sample=False,
            eos_token_id=sorted(self._chat.stop_tokens),
            pad_token_id=self._chat.filler,
        )

    def _answer_in_batches(
        self,
        rendered: list[list[int]],
        chooser: Chooser,
        seeds: Sequence[int],
        finished: Callable[[Answering], None],
    ) -> None:
        order = sorted(range(len(rendered)), key=lambda i: (len(rendered[i]), i))
        alone = depends_on_length(self._model.config.get_text_config())
        size = 1 if alone else self._room.n
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            began = time.perf_counter()
            draws = [Draws(seeds[i]) for i in batch]
            prompts = [rendered[i] for i in batch]
            answers, times = self._generate_batch(prompts, chooser, draws)
            for i, ids in zip(batch, answers, strict=True):
                cut = self._cut(ids, chooser.sampling)
                finished(Answering(i, rendered[i], began, cut, times[len(cut) - 1] - began))

    def _cut(self, ids: list[int], sampling: Sampling) -> list[int]:
        """Return what a batch generated for one answer without what follows its end."""
        ends = (n for n in range(1, len(ids)) if self._chat.is_over(ids[:n], sampling.stop))
        return ids[: next(ends, len(ids))]

    def _generate_batch(
        self, rendered: list[list[int]], chooser: Chooser, draws: Sequence[Draws]
    ) -> tuple[list[list[int]], list[float]]:
        """Return the tokens of each answer, and when each of them was there."""
        sampling = chooser.sampling
        inputs, mask = (part.to(self.device) for part in self._chat.padded(rendered))
        width, tail = inputs.shape[1], self._chat.tail_length(sampling.stop)
        times: list[float] = []

        def chosen(ids: Tensor, logits: Tensor) -> Tensor:
            """Leave the token that was chosen, and no other; all, where the best one is."""
            if chooser.is_greedy:
                chooser.choose(logits, (), ())
                return logits
            answers = ids[:, width:].tolist()
            seen = [[*prompt, *ids] for prompt, ids in zip(rendered, answers, strict=True)]
            return one_hot(chooser.choose(logits, seen, draws), logits)

        def over(ids: Tensor, scores: Tensor, **kwargs: Any) -> Tensor:
            """Note when a token is there; end answers by their own text, without the prompt's."""
            times.append(time.perf_counter())
            ends = torch.zeros(len(ids), dtype=torch.bool)
            if sampling.stop:
                ends[:] = torch.tensor(
                    [
                        self._chat.is_over(answer, sampling.stop)
                        for answer in ids[:, max(width, ids.shape[1] - tail) :].tolist()
                    ]
                )
            return ends.to(ids.device)

        with torch.inference_mode():
            output = self._model.generate(
                input_ids=inputs,
                attention_mask=mask,
                max_new_tokens=sampling.max_new_tokens,
                stopping_criteria=[over],
                logits_processor=[chosen],
            )
        answers: list[list[int]] = output[:, width:].tolist()
        return answers, times
