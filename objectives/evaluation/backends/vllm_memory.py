"""Whether a model and its answers fit the GPUs, said before anything is loaded."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from ....errors import EvaluationError
from ...checkpoints import Checkpoint
from .backend import Models

_GIB = 1 << 30
# Activations, captured graphs and the allocator's own: what vLLM was seen to take at least.
_WORKSPACE = 1.5 * _GIB


@dataclass(frozen=True)
class EngineSettings:
    """How the engine is started.

    Args:
        tensor_parallel_size: GPUs that share one model.
        gpu_memory_utilization: Share of a GPU's memory for weights, activations and KV cache.
        max_model_len: Longest prompt and answer, in tokens. Defaults to None: the model's own.
        max_num_seqs: Answers generated at once.
    """

    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    max_num_seqs: int = 256


@dataclass(frozen=True)
class Need:
    """Bytes on each GPU.

    Args:
        weights: Of the live model; the parents stay in the host's memory.
        per_token: Of the KV cache, for one token of one answer.
        tokens: Of the longest prompt and answer.
    """

    weights: float
    per_token: float
    tokens: int

    @property
    def total(self) -> float:
        """With one answer of full length."""
        return self.weights + self.per_token * self.tokens + _WORKSPACE


def needed(models: Models, settings: EngineSettings) -> Need:
    """Return what one GPU must hold."""
    checkpoint = Checkpoint(models.base)
    itemsize = getattr(torch, models.dtype).itemsize
    n_elements = sum(math.prod(shape) for shape in checkpoint.shapes().values())
    config = _text_config(checkpoint.config)
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    cached = config.get("num_key_value_heads", heads) * head_dim * config["num_hidden_layers"]
    share = settings.tensor_parallel_size
    tokens = settings.max_model_len or config["max_position_embeddings"]
    return Need(n_elements * itemsize / share, 2 * cached * itemsize / share, tokens)


def _text_config(config: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = config.get("text_config", config)
    return nested


def check_memory(models: Models, settings: EngineSettings, total: int | None) -> None:
    """Check that weights and one answer of full length fit.

    Args:
        models: The base decides; parents stay in the host's memory, mapped from their files.
        settings: Of the engine.
        total: Bytes of the smallest GPU; None for a CPU, whose memory vLLM checks by itself.

    Raises:
        EvaluationError: With the numbers, and the ways out.
    """
    if total is None:
        return
    need, given = needed(models, settings), settings.gpu_memory_utilization * total
    if need.total > given:
        fits = int((given - need.weights - _WORKSPACE) // need.per_token)
        way = (
            f"lower evaluation.engine.max_model_len to {fits}"
            if fits > 0
            else "take bfloat16 or a larger GPU"
        )
        raise EvaluationError(
            f"A GPU must hold {need.weights / _GIB:.1f} GiB of weights, "
            f"{need.per_token * need.tokens / _GIB:.1f} GiB of KV cache for one answer of "
            f"{need.tokens} tokens and {_WORKSPACE / _GIB:.1f} GiB to work with, but "
            f"{given / _GIB:.1f} GiB are given ({settings.gpu_memory_utilization:g} of "
            f"{total / _GIB:.1f}): {way}, or raise evaluation.engine.tensor_parallel_size."
        )
