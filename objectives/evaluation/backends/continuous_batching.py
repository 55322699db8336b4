"""Continuous batching for transformers models: where an answer ends, the next question begins.

`model.generate` keeps a batch until its longest answer ends: where most answers take ten tokens
and a few take a thousand, most of the work is padding. Here a batch is a set of rows; a row is
given to the next question when its answer ends. transformers' own `generate_batch` does the same
with paged attention, but is made for GPUs: on a CPU it was slower than `generate` by a factor of
twenty.
"""

import inspect
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from .backend import Sampling
from .drawing import Chooser, Draws

# Rows are refilled when this share of them is free: reading a prompt costs a call of its own.
_REFILL = 0.25
_FIRST_LENGTH = 64


def fits(model: Any) -> bool:
    """Whether a model can be run in rows: plain causal attention over all positions, no ALiBi."""
    config = model.config.get_text_config()
    if depends_on_length(config) or getattr(config, "alibi", False):
        return False
    layers = getattr(config, "layer_types", None)
    plain = all(kind == "full_attention" for kind in layers or ())
    windowed = layers is None and getattr(config, "sliding_window", None) is not None
    return plain and not windowed and model.config._attn_implementation == "sdpa"


def cache_argument(model: Any) -> str:
    """Return what a model calls its cache: `cache`, or `past_key_values` before transformers 5.24.

    The old name still works there, but warns, and will be removed.
    """
    known = inspect.signature(model.forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def depends_on_length(config: Any) -> bool:
    """Whether a rotary embedding turns by the longest text in a batch: answers need be alone."""
    ropes = getattr(config, "rope_parameters", None) or {}
    nested = [part for part in ropes.values() if isinstance(part, dict)]
    return any(part.get("rope_type") in ("dynamic", "longrope", "su") for part in [ropes, *nested])


@dataclass
class Answering:
    """One question while it is answered.

    Args:
        index: Among the prompts.
        prompt: Token ids.
        started: When its prompt was read.
        ids: Generated so far.
        seconds: From `started` to the end of the answer.
        draws: Its random numbers.
    """

    index: int
    prompt: list[int]
    started: float = 0.0
    ids: list[int] = field(default_factory=list)
    seconds: float = 0.0
    draws: Draws | None = None


class Rows:
    """Answers in flight, with the keys and values of each in a row of its own.

    Args:
        model: For which `fits`.
        n_rows: Answers in flight.
    """

    def __init__(self, model: Any, n_rows: int) -> None:
        self._model, self.n_rows = model, n_rows
        n_layers = model.config.get_text_config().num_hidden_layers
        self._layers = [_Layer(n_rows) for _ in range(n_layers)]
        self._cache = Cache(layers=list(self._layers))
        self._cache_name = cache_argument(model)

    def answer(
        self,
        prompts: Sequence[list[int]],
        max_new_tokens: int,
        is_over: Callable[[list[int]], bool],
        finished: Callable[[Answering], None],
        chooser: Chooser | None = None,
        seeds: Sequence[int] = (),
    ) -> None:
        """Answer all prompts.

        Args:
            prompts: Token ids.
            max_new_tokens: Of each answer.
            is_over: Whether an answer ends with its last token.
            finished: Called with each answer as it ends.
            chooser: Of tokens. Defaults to None: the most probable ones.
            seeds: Of each answer, where tokens are drawn. Defaults to the prompts' places.
        """
        self._chooser = chooser or Chooser(Sampling(max_new_tokens))
        seeds = seeds or range(len(prompts))
        # Long prompts tend to have long answers, which would be left over alone at the end.
        by_length = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
        most = max(map(len, prompts), default=0) + max_new_tokens
        for layer in self._layers:
            layer.most = most
        waiting = deque(Answering(i, prompts[i], draws=Draws(seeds[i])) for i in by_length)
        active: list[Answering] = []
        with torch.inference_mode():
            while waiting or active:
                free = min(self.n_rows - len(active), len(waiting))
                if free and free >= min(len(waiting), _REFILL * self.n_rows):
                    new = [waiting.popleft() for _ in range(free)]
                    self._read(new, len(active))
                    active += new
                else:
                    self._step(active)
                active = self._remove(active, max_new_tokens, is_over, finished)

    def _read(self, new: list[Answering], first_row: int) -> None:
        """Read prompts into the free rows from `first_row`, and add the first token of each."""
        now = time.perf_counter()
        lengths = [len(answering.prompt) for answering in new]
        longest = max(lengths)
        # What follows a prompt is attended by nobody: positions are causal, and overwritten later.
        ids = [a.prompt + [0] * (longest - len(a.prompt)) for a in new]
        for layer in self._layers:
            layer.place(slice(first_row, first_row + len(new)), None, longest)
        ends = sorted({length - 1 for length in lengths})
        mask = torch.ones(longest, longest, dtype=torch.bool, device=self._device).tril()
        positions = torch.arange(longest, device=self._device).expand(len(new), -1)
        logits = self._forward(ids, positions, mask[None, None], self._tensor(ends))
        rows = self._tensor([ends.index(length - 1) for length in lengths])
        self._choose(new, logits[torch.arange(len(new), device=self._device), rows])
        for answering in new:
            answering.started = now

    def _step(self, active: list[Answering]) -> None:
        """Add one token to every answer."""
        at = [len(answering.prompt) + len(answering.ids) - 1 for answering in active]
        longest, positions = max(at) + 1, self._tensor(at)
        for layer in self._layers:
            layer.place(slice(0, len(active)), positions, longest)
        seen = torch.arange(longest, device=self._device) <= positions[:, None]
        last = [answering.ids[-1:] for answering in active]
        logits = self._forward(last, positions[:, None], seen[:, None, None], 1)
        self._choose(active, logits[:, -1])

    def _choose(self, active: list[Answering], logits: Tensor) -> None:
        """Add the token that the logits of each answer lead to."""
        greedy = self._chooser.is_greedy
        seen = [] if greedy else [answering.prompt + answering.ids for answering in active]
        draws = [answering.draws for answering in active if answering.draws]
        tokens = self._chooser.choose(logits, seen, draws)
        for answering, token in zip(active, tokens.tolist(), strict=True):
            answering.ids.append(token)

    def _forward(
        self, ids: list[list[int]], positions: Tensor, mask: Tensor, keep: Tensor | int
    ) -> Tensor:
        output = self._model(
            input_ids=self._tensor(ids),
            position_ids=positions,
            attention_mask=mask,
            use_cache=True,
            logits_to_keep=keep,
            **{self._cache_name: self._cache},
        )
        logits: Tensor = output.logits
        return logits

    def _remove(
        self,
        active: list[Answering],
        max_new_tokens: int,
        is_over: Callable[[list[int]], bool],
        finished: Callable[[Answering], None],
    ) -> list[Answering]:
        """Take out the answers that have ended; the rows of the others are the first ones."""
        now = time.perf_counter()
        over = [len(a.ids) >= max_new_tokens or is_over(a.ids) for a in active]
        for answering in (a for a, ended in zip(active, over, strict=True) if ended):
            answering.seconds = now - answering.started
            finished(answering)
        n_left = over.count(False)
        holes = [row for row in range(n_left) if over[row]]
        movers = [row for row in range(n_left, len(active)) if not over[row]]
        if holes:
            to, origin = self._tensor(holes), self._tensor(movers)
            for layer in self._layers:
                layer.move(to, origin)
        active = list(active)
        for hole, mover in zip(holes, movers, strict=True):
            active[hole] = active[mover]
        return active[:n_left]

    @property
    def _device(self) -> torch.device:
        device: torch.device = self._model.device
        return device

    def _tensor(self, numbers: list[Any]) -> Tensor:
        return torch.tensor(numbers, device=self._device)


class _Layer(CacheLayerMixin):
    """One layer's keys and values: rows x heads x positions x features.

    The memory is kept from one candidate to the next, and grows by doubling, to `most` positions.
    """

    keys: Any
    values: Any

    def __init__(self, n_rows: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._n_rows, self.most = n_rows, _FIRST_LENGTH

    def place(self, rows: slice, positions: Tensor | None, length: int) -> None:
        """Say where the next keys go.

        Args:
            rows: Whose they are.
            positions: One a row; None for whole prompts, which start at 0.
            length: Positions in use, these included.
        """
        self._rows, self._positions, self._length = rows, positions, length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take the first memory."""
        self.keys, self.values = self._empty(key_states), self._empty(value_states)
        self.is_initialized = True

    def _empty(self, like: Tensor, length: int = _FIRST_LENGTH) -> Tensor:
        length = max(min(length, self.most), self._length)
        # Zeros: masked positions are multiplied by 0, and what is not a number would survive it.
        return like.new_zeros(self._n_rows, like.shape[1], length, like.shape[3])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Store new keys and values; return all that is attended to."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._grown(self.keys), self._grown(self.values)
        if self._positions is None:
            self.keys[self._rows, :, : self._length] = key_states
            self.values[self._rows, :, : self._length] = value_states
            return key_states, value_states
        rows = torch.arange(self._rows.stop, device=key_states.device)
        self.keys[rows, :, self._positions] = key_states[:, :, 0]
        self.values[rows, :, self._positions] = value_states[:, :, 0]
        return self.keys[self._rows, :, : self._length], self.values[self._rows, :, : self._length]

    def _grown(self, buffer: Tensor) -> Tensor:
        if buffer.shape[2] >= self._length:
            return buffer
        grown = self._empty(buffer, 2 * buffer.shape[2])
        grown[:, :, : buffer.shape[2]] = buffer
        return grown

    def move(self, to: Tensor, origin: Tensor) -> None:
        """Copy rows."""
        for buffer in (self.keys, self.values):
            buffer[to, :, : self._length] = buffer[origin, :, : self._length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the positions attended to; masks are made by `Rows`."""
        return self._length, 0

    def get_seq_length(self) -> int:
        """Return the positions in use; differs from row to row, and nobody may rely on it."""
        return 0

    def get_max_length(self) -> int:
        """Return -1: no limit."""
        return -1
