"""The reference engine: a transformers model whose parameters are overwritten in place."""

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import EvaluationError
from ..merging import (
    OPERATORS,
    Checkpoint,
    LoraCheckpoint,
    MergePlan,
    ModuleSink,
    is_adapter,
)
from ..merging.engine import checksum
from .backend import Completion, Models, Progress, Sampling


class TransformersBackend:
    """Batched greedy generation with in-place merges.

    Memory: the live model, a copy of the base, and every expert, all in `Models.dtype`.

    Args:
        batch_size: Prompts generated together.
        device: A torch device; by default the first GPU, else the CPU.
    """

    def __init__(self, batch_size: int = 64, device: str | None = None) -> None:
        self.batch_size = batch_size
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = None
        self._tokenizer: Any = None

    def load(self, models: Models) -> None:
        """Load the parents and the base's tokenizer."""
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(models.base, padding_side="left")
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = self._load_model(models.base, models.dtype)
        self._stop_tokens = _stop_tokens(self._model)
        self._model.generation_config = self._greedy_config()
        experts = [self._load_expert(path, models) for path in models.experts]
        tied = bool(self._model.config.get_text_config().tie_word_embeddings)
        self._sink = ModuleSink(self._model, experts, models.merge, tied)
        _check_names(self._sink.parameters, models)

    @property
    def plan(self) -> MergePlan:
        """The search variables of the loaded models."""
        return self._sink.plan

    def apply(self, weights: Mapping[str, Sequence[float]]) -> float:
        """Overwrite the live parameters with the candidate; return the seconds it took."""
        start = time.perf_counter()
        self._sink.write(weights)
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def generate(
        self, prompts: Sequence[str], sampling: Sampling, progress: Progress | None = None
    ) -> list[Completion]:
        """Answer the prompts; batches hold prompts of similar length, so padding is short."""
        rendered = [self._render(prompt) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda i: (len(rendered[i]), i))
        completions: dict[int, Completion] = {}
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            answers = self._generate_batch([rendered[i] for i in batch], sampling)
            completions.update(zip(batch, answers, strict=True))
            if progress is not None:
                progress(len(batch))
        return [completions[i] for i in range(len(prompts))]

    def checksum(self) -> str:
        """Return a SHA-256 over the live parameters."""
        return checksum(sorted(self._sink.parameters.items()))

    def close(self) -> None:
        """Release the models."""
        self._model = self._tokenizer = None
        del self._sink

    def _load_expert(self, path: Path, models: Models) -> Any:
        if not is_adapter(path):
            return self._load_model(path, models.dtype)
        expert = self._load_model(models.base, models.dtype)
        adapter = LoraCheckpoint(path, Checkpoint(models.base))
        for name in adapter.changed:
            expert.get_parameter(name).data = (
                adapter.tensor(name).load().to(self.device, getattr(torch, models.dtype))
            )
        return expert

    def _load_model(self, path: Path, dtype: str) -> Any:
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
        )
        return model.to(self.device).eval().requires_grad_(False)

    def _greedy_config(self) -> Any:
        """Return a configuration that leaves nothing to the checkpoint's own sampling defaults."""
        from transformers import GenerationConfig

        return GenerationConfig(
            do_sample=False,
            eos_token_id=sorted(self._stop_tokens),
            pad_token_id=self._tokenizer.pad_token_id,
        )

    def _render(self, prompt: str) -> list[int]:
        """Return the token ids of one prompt.

        A rendered chat template holds its own opening tokens, so none are added to it.
        """
        if not self._tokenizer.chat_template:
            return list(self._tokenizer(prompt).input_ids)
        message = [{"role": "user", "content": prompt}]
        text = self._tokenizer.apply_chat_template(
            message, add_generation_prompt=True, tokenize=False
        )
        return list(self._tokenizer(text, add_special_tokens=False).input_ids)

    def _generate_batch(self, rendered: list[list[int]], sampling: Sampling) -> list[Completion]:
        inputs = self._tokenizer.pad({"input_ids": rendered}, return_tensors="pt").to(self.device)
        self._check_length(inputs.input_ids.shape[1], sampling)
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                max_new_tokens=sampling.max_new_tokens,
            )
        return [self._completion(row) for row in output[:, inputs.input_ids.shape[1] :].cpu()]

    def _check_length(self, n_prompt: int, sampling: Sampling) -> None:
        limit = self._model.config.get_text_config().max_position_embeddings
        if n_prompt + sampling.max_new_tokens > limit:
            raise EvaluationError(
                f"A prompt and its answer must fit the model's {limit} positions, but the longest "
                f"prompt has {n_prompt} tokens and max_new_tokens={sampling.max_new_tokens}. "
                "Lower evaluation.max_new_tokens or shorten the prompts."
            )

    def _completion(self, tokens: Tensor) -> Completion:
        ids: list[int] = tokens.tolist()
        stop = next((i for i, token in enumerate(ids) if token in self._stop_tokens), None)
        text = self._tokenizer.decode(ids[:stop], skip_special_tokens=False)
        if stop is None:
            return Completion(text, len(ids), "length")
        return Completion(text, stop + 1, "stop")


def _stop_tokens(model: Any) -> frozenset[int]:
    """Return the ids that end an answer: the generation config's, else the model config's."""
    configured = model.generation_config.eos_token_id
    if configured is None:
        configured = model.config.get_text_config().eos_token_id
    if configured is None:
        raise EvaluationError(
            "A model must name its stop token, but neither generation_config.json nor config.json "
            "has eos_token_id. Add it to the base's generation_config.json."
        )
    return frozenset(configured if isinstance(configured, Iterable) else [configured])


def _check_names(names: Iterable[str], models: Models) -> None:
    """Refuse operators that look at whole tensors where loading has fused tensors.

    Raises:
        EvaluationError: If the live tensors are not the checkpoint's.
    """
    operator = OPERATORS[models.merge.operator]
    if operator.elementwise and operator.sparsify is None:
        return
    fused = sorted(set(names) - Checkpoint(models.base).layout.keys())
    if fused:
        raise EvaluationError(
            f"Operator {operator.name!r} works on the checkpoint's own tensors, but loading fused "
            f"some, e.g. {fused[0]!r}. Use an elementwise operator such as 'linear'."
        )
