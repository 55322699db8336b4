"""Whether a model and its answers fit the GPUs, said before anything is loaded."""

import math
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ....errors import EvaluationError
from ...checkpoints import Checkpoint
from ...checkpoints.configs import load_config, positions, positions_of
from ...merging import OPERATORS
from .backend import Models

_GIB = 1 << 30
# Activations, captured graphs and the allocator's own: what vLLM was seen to take at least.
_WORKSPACE = 1.5 * _GIB
# Left free beside parents on a GPU: for what generating allocates now and then.
LEFT_FREE = 1 * _GIB
# Tokens read at once: vLLM keeps a window and what it is reading.
_AHEAD = 8192
# Tokens of the longest answer where neither the spec nor the model says it, as vLLM assumes.
_ASSUMED_LENGTH = 2048
_FULL = "full_attention"


@dataclass(frozen=True)
class EngineSettings:
    """How the engine is started.

    Args:
        tensor_parallel_size: GPUs that share one model.
        gpu_memory_utilization: Share of a GPU's memory for weights, activations and KV cache; less
            of it where that lets the parents stay on the GPU.
        max_model_len: Longest prompt and answer, in tokens. Defaults to None: the model's own.
        max_num_seqs: Answers generated at once.
        batch_invariant: Whether answers must not depend on those generated with them; needs a GPU
            that vLLM supports, and costs speed.
    """

    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    max_num_seqs: int = 256
    batch_invariant: bool = False


@dataclass(frozen=True)
class Layers:
    """Layers that remember alike.

    Args:
        per_token: Bytes that all of them keep of one token, on each GPU.
        window: Tokens that they keep of an answer at most; None for all.
    """

    per_token: float
    window: int | None = None


@dataclass(frozen=True)
class Need:
    """Bytes on each GPU.

    Args:
        weights: Of the live model.
        layers: What is kept of an answer's tokens.
        tokens: Of the longest prompt and answer.
    """

    weights: float
    layers: tuple[Layers, ...]
    tokens: int

    def cache(self, tokens: int | None = None) -> float:
        """Return the KV cache of one answer; of the longest one by default."""
        tokens = self.tokens if tokens is None else tokens
        return sum(kind.per_token * min(tokens, kind.window or tokens) for kind in self.layers)

    @property
    def total(self) -> float:
        """With one answer of full length."""
        return self.weights + self.cache() + _WORKSPACE

    def longest(self, given: float) -> int:
        """Return the length of an answer that fits, in tokens; 0 if none does."""
        room = given - self.weights - _WORKSPACE
        lengths = range(1, self.tokens + 1)
        return bisect_right(lengths, room, key=self.cache)


def needed(models: Models, settings: EngineSettings) -> Need:
    """Return what one GPU must hold."""
    checkpoint = Checkpoint(models.base)
    itemsize = getattr(torch, models.dtype).itemsize
    n_elements = sum(math.prod(shape) for shape in checkpoint.shapes().values())
    config = load_config(models.base)
    share = settings.tensor_parallel_size
    tokens = settings.max_model_len or positions_of(config) or _ASSUMED_LENGTH
    return Need(n_elements * itemsize / share, _layers(config, share, itemsize), tokens)


def with_length_of(settings: EngineSettings, base: Path, expert: Path) -> EngineSettings:
    """Return settings under which an expert's own engine starts: no longer than both models go."""
    known = (settings.max_model_len or positions(base), positions(expert))
    length = min((n for n in known if n is not None), default=None)
    return replace(settings, max_model_len=length)


def _layers(config: Any, share: int, itemsize: int) -> tuple[Layers, ...]:
    """Return the layers with attention: those that see everything, and those with a window."""
    if getattr(config, "num_attention_heads", None) is None:
        return ()  # Mamba: a state of constant size alone
    per_layer = itemsize * _kept_elements(config, share)
    kinds = getattr(config, "layer_types", None) or [_FULL] * config.num_hidden_layers
    sizes = {
        _FULL: None,
        "sliding_attention": getattr(config, "sliding_window", None),
        "chunked_attention": getattr(config, "attention_chunk_size", None),
    }  # other layers have a state of constant size
    windows = [sizes[kind] for kind in kinds if kind in sizes]
    if not getattr(config, "layer_types", None) and getattr(config, "use_sliding_window", True):
        windows = [getattr(config, "sliding_window", None)] * len(windows)
    return tuple(
        Layers(per_layer * n, None if window is None else window - 1 + _AHEAD)
        for window, n in Counter(windows).items()
    )


def _kept_elements(config: Any, share: int) -> float:
    """Return the numbers that one layer keeps of a token on one GPU.

    Multi-head latent attention keeps one compressed vector, the same on every GPU. Else every GPU
    has its share of the key and value heads, and one head at least.
    """
    if latent := getattr(config, "kv_lora_rank", None):
        return int(latent) + int(config.qk_rope_head_dim)
    heads = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = getattr(config, "num_key_value_heads", None) or heads
    return 2 * max(1, int(kept) // share) * int(head_dim)


def with_room_for_parents(
    models: Models, settings: EngineSettings, total: int | None
) -> EngineSettings:
    """Return settings that leave room on the GPU for all parents, where it is worth it.

    Parents on the GPU are merged at the speed of its memory, parents in the host's at that of the
    bus. They take the place of KV cache, of which half, and one answer, must be left.

    Args:
        models: The parents.
        settings: As asked for.
        total: Bytes of the smallest GPU; None for a CPU.
    """
    if total is None or not _kept_as_kernels_hold_them(models):
        return settings
    need, given = needed(models, settings), settings.gpu_memory_utilization * total
    parents = (1 + len(models.experts)) * need.weights + LEFT_FREE
    given_then = min(given, total - parents)
    cache, cache_then = (room - need.weights - _WORKSPACE for room in (given, given_then))
    if cache_then < max(cache / 2, need.cache()):
        return settings
    return replace(settings, gpu_memory_utilization=given_then / total)


def _kept_as_kernels_hold_them(models: Models) -> bool:
    merge = models.merge
    dense = OPERATORS[merge.operator].elementwise and merge.density == 1.0
    return dense and not merge.arms and merge.precision is None


def check_memory(models: Models, settings: EngineSettings, total: int | None) -> None:
    """Check that weights and one answer of full length fit.

    Args:
        models: The base decides: where there is no room for parents, they stay in the host's.
        settings: Of the engine.
        total: Bytes of the smallest GPU; None for a CPU, whose memory vLLM checks by itself.

    Raises:
        EvaluationError: With the numbers, and the ways out.
    """
    if total is None:
        return
    need, given = needed(models, settings), settings.gpu_memory_utilization * total
    if need.total > given:
        fits = need.longest(given)
        way = (
            f"lower evaluation.engine.max_model_len to {fits}"
            if fits > 0
            else "take bfloat16 or a larger GPU"
        )
        raise EvaluationError(
            f"A GPU must hold {need.weights / _GIB:.1f} GiB of weights, "
            f"{need.cache() / _GIB:.1f} GiB of KV cache for one answer of "
            f"{need.tokens} tokens and {_WORKSPACE / _GIB:.1f} GiB to work with, but "
            f"{given / _GIB:.1f} GiB are given ({settings.gpu_memory_utilization:g} of "
            f"{total / _GIB:.1f}): {way}, or raise evaluation.engine.tensor_parallel_size."
        )


def longest_read(max_length: int) -> int:
    """Return how many tokens before its last one a text that is read may have.

    The last token is read too, and one more is generated.

    Args:
        max_length: Of a prompt and its answer, in tokens.
    """
    return max_length - 2
