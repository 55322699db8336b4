"""How probable a text is to a model: what tasks compare that generate nothing.

Texts become tokens as in lm-evaluation-harness's `hf` model, so that scores are the same: white
space at the end of a context belongs to the continuation, an empty context is the model's first
token, what is too long loses its beginning, and whole texts are read in windows that do not
overlap.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# What was read, and what follows it; None: the whole text, from its first token.
Pair = tuple[str | None, str]
# Numbers that the logits of one forward pass may have.
_MOST_LOGITS = 1 << 27


@dataclass(frozen=True)
class Likelihood:
    """How probable a continuation is.

    Args:
        total: Logarithm of its probability, in nats.
        is_greedy: Whether each of its tokens is the most probable one.
        n_tokens: Of it.
    """

    total: float
    is_greedy: bool
    n_tokens: int


@dataclass(frozen=True)
class Window:
    """Tokens that are read at once.

    Args:
        pair: Place of the pair that they belong to.
        ids: Context and continuation.
        n: The last ones, whose probability counts.
    """

    pair: int
    ids: tuple[int, ...]
    n: int

    @property
    def read(self) -> tuple[int, ...]:
        """What the model reads: all but the last token."""
        return self.ids[:-1]


def windows(tokenizer: Any, pairs: Sequence[Pair], limit: int) -> list[Window]:
    """Return what is read for each pair.

    Args:
        tokenizer: Of the base.
        pairs: Contexts and continuations.
        limit: Tokens that the model can read.
    """
    prefix = tokenizer.bos_token_id
    prefix = tokenizer.eos_token_id if prefix is None else prefix
    made: list[Window] = []
    for place, (context, continuation) in enumerate(pairs):
        if context is None:
            ids = _encode(tokenizer, continuation, prefix)
            made += [Window(place, part, n) for part, n in _rolling(ids, prefix, limit)]
        else:
            read, following = _split(tokenizer, context, continuation, prefix)
            kept = tuple([*read, *following][-(limit + 1) :])
            made.append(Window(place, kept, min(len(following), len(kept) - 1)))
    return made


def _encode(tokenizer: Any, text: str, prefix: int) -> list[int]:
    opened = text.startswith(tokenizer.decode([prefix]))
    return list(tokenizer.encode(text, **({"add_special_tokens": False} if opened else {})))


def _split(
    tokenizer: Any, context: str, continuation: str, prefix: int
) -> tuple[list[int], list[int]]:
    if context == "":
        ids = list(tokenizer.encode(continuation, add_special_tokens=False))
        return (ids[:1], ids[1:]) if ids[:1] == [prefix] else ([prefix], ids)
    bare = context.rstrip()
    whole = _encode(tokenizer, bare + context[len(bare) :] + continuation, prefix)
    read = _encode(tokenizer, bare, prefix) if bare else [prefix]
    return read, whole[len(read) :]


def _rolling(ids: list[int], prefix: int, limit: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Yield windows: each token counts once, after as many as fit."""
    if ids:
        first = ids[:limit]
        yield (prefix, *first), len(first)
    for start in range(limit, len(ids), limit):
        end = min(start + limit, len(ids))
        yield tuple(ids[end - limit - 1 : end]), end - start


def measured(
    logits_of: Callable[[Tensor, Tensor], Tensor],
    asked: Sequence[Window],
    batch_size: int,
    n_words: int,
    device: str,
) -> Iterator[tuple[Window, Likelihood]]:
    """Yield the likelihood of every window, in batches of similar length.

    Args:
        logits_of: From token ids (rows x positions, filled up at the end) and the positions
            that are wanted to logits (rows x wanted x words).
        asked: Windows; those that read the same share a row, as choices of one token do.
        batch_size: Rows of a batch.
        n_words: Size of the vocabulary.
        device: Of the model.
    """
    sharing: dict[tuple[int, ...], list[Window]] = {}
    for window in asked:
        sharing.setdefault(window.read, []).append(window)
    left = sorted(sharing, key=lambda read: (-len(read), read))
    while left:
        n_kept = max(window.n for window in sharing[left[0]]) + 1
        rows = left[: max(1, min(batch_size, _MOST_LOGITS // (n_kept * n_words)))]
        left = left[len(rows) :]
        longest = len(rows[0])
        first = min(len(read) - w.n for read in rows for w in sharing[read])
        ids = torch.tensor([[*read, *[0] * (longest - len(read))] for read in rows], device=device)
        logits = logits_of(ids, torch.arange(first, longest, device=device)).float()
        logs = logits.log_softmax(dim=-1)
        for row, read in enumerate(rows):
            for window in sharing[read]:
                end = len(read) - first
                yield window, _likelihood(logs[row, end - window.n : end], window)


def _likelihood(logs: Tensor, window: Window) -> Likelihood:
    tokens = torch.tensor(window.ids[len(window.ids) - window.n :], device=logs.device)
    total = logs.gather(-1, tokens[:, None]).sum()
    greedy = bool((logs.argmax(dim=-1) == tokens).all())
    return Likelihood(float(total), greedy, window.n)


def added(parts: Sequence[Likelihood]) -> Likelihood:
    """Return the likelihood of a text from those of its windows."""
    return Likelihood(
        sum(part.total for part in parts),
        all(part.is_greedy for part in parts),
        sum(part.n_tokens for part in parts),
    )


def likelihoods_in(text: str) -> list[Likelihood]:
    """Return the likelihoods that an answer which generates nothing consists of."""
    return [Likelihood(*row) for row in json.loads(text)]
