"""How probable a text is to a model: what tasks compare, or read, that generate nothing.

Texts become tokens as in lm-evaluation-harness's `hf` model, so that scores are the same: white
space at the end of a context belongs to the continuation, an empty context is the model's first
token, what is too long loses its beginning, and whole texts are read in windows that do not
overlap.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ....errors import EvaluationError

# What was read, and what follows it; None: the whole text, from its first token.
Pair = tuple[str | None, str]
# Numbers that the logits of one forward pass may have.
_MOST_LOGITS = 1 << 27
# Tokens of a text that are read at once, as in most tables of perplexities.
TEXT_WINDOW = 2048
# Positions whose distributions over the vocabulary are made in float32 at once: so few stay near a
# CPU's cache, which takes less than half the time that 64 take.
_POSITIONS = 8


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
class Reading:
    """How a model reads a text, summed over the text's tokens, in nats.

    Args:
        total: Logarithm of its probability.
        n_tokens: Of it.
        divergences: Parent (0 the base, 1 the first expert) -> divergence of the model from it,
            `KL(parent || model)`: how much worse than the parent itself the model predicts what
            the parent would write.
    """

    total: float
    n_tokens: int
    divergences: Mapping[int, float] = field(default_factory=dict)


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
    prefix = opening_token(tokenizer)
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


def text_window(limit: int) -> int:
    """Return how many tokens of a text are read at once.

    Args:
        limit: Tokens that the model can read.
    """
    return min(limit, TEXT_WINDOW)


def text_windows(tokenizer: Any, texts: Sequence[str], size: int) -> list[Window]:
    """Return what is read of each text; tokens that a tokenizer adds are not of the text.

    Args:
        tokenizer: Of the base.
        texts: Whole.
        size: Tokens of a window.
    """
    prefix = opening_token(tokenizer)
    made: list[Window] = []
    for place, text in enumerate(texts):
        ids = list(tokenizer.encode(text, add_special_tokens=False))
        made += [Window(place, part, n) for part, n in _rolling(ids, prefix, size)]
    return made


def opening_token(tokenizer: Any) -> int:
    """Return what the first token of a text follows.

    Raises:
        EvaluationError: If the tokenizer names no token for it.
    """
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise EvaluationError(
        "The first token of a text is read after the one that opens it, but the base's "
        "tokenizer_config.json names neither `bos_token` nor `eos_token`. Add the one that its "
        "texts began with in training."
    )


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


# From token ids (rows x positions, filled up at the end) and the positions that are wanted to
# logits (rows x wanted x words).
LogitsOf = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class _Batch:
    """Windows whose tokens go through a model together, the longest first.

    Args:
        rows: The windows of each row: those that read the same share it, as choices of one token
            do.
    """

    rows: list[list[Window]]

    @property
    def first(self) -> int:
        """The first position whose logits are wanted."""
        return min(len(window.read) - window.n for row in self.rows for window in row)

    def inputs(self, device: str) -> tuple[Tensor, Tensor]:
        """Return token ids and the positions that are wanted."""
        reads = [row[0].read for row in self.rows]
        longest = len(reads[0])
        ids = torch.tensor([[*read, *[0] * (longest - len(read))] for read in reads])
        return ids.to(device), torch.arange(self.first, longest, device=device)

    def parts(self, logits: Tensor) -> Iterator[tuple[Window, Tensor]]:
        """Yield each window's own logits, `window.n` x words."""
        for row, windows_of_row in enumerate(self.rows):
            for window in windows_of_row:
                end = len(window.read) - self.first
                yield window, logits[row, end - window.n : end]


def _batches(asked: Sequence[Window], batch_size: int, n_words: int) -> Iterator[_Batch]:
    sharing: dict[tuple[int, ...], list[Window]] = {}
    for window in asked:
        sharing.setdefault(window.read, []).append(window)
    left = sorted(sharing, key=lambda read: (-len(read), read))
    while left:
        n_kept = max(window.n for window in sharing[left[0]]) + 1
        rows = left[: max(1, min(batch_size, _MOST_LOGITS // (n_kept * n_words)))]
        left = left[len(rows) :]
        yield _Batch([sharing[read] for read in rows])


def measured(
    logits_of: LogitsOf, asked: Sequence[Window], batch_size: int, n_words: int, device: str
) -> Iterator[tuple[Window, Likelihood]]:
    """Yield the likelihood of every window, in batches of similar length.

    Args:
        logits_of: The model.
        asked: Windows.
        batch_size: Rows of a batch.
        n_words: Size of the vocabulary.
        device: Of the model.
    """
    for batch in _batches(asked, batch_size, n_words):
        logs = logits_of(*batch.inputs(device)).float().log_softmax(dim=-1)
        for window, own in batch.parts(logs):
            yield window, _likelihood(own, window)


def readings(
    logits_of: LogitsOf,
    parents: Mapping[int, LogitsOf],
    asked: Sequence[Window],
    batch_size: int,
    n_words: int,
    device: str,
) -> Iterator[tuple[Window, Reading]]:
    """Yield how the model reads every window, and how far it is from parents.

    Args:
        logits_of: The model.
        parents: By number, from 0 for the base.
        asked: Windows.
        batch_size: Rows of a batch.
        n_words: Size of the vocabulary.
        device: Of the model.
    """
    for batch in _batches(asked, batch_size, n_words):
        inputs = batch.inputs(device)
        own = [(window, part) for window, part in batch.parts(logits_of(*inputs))]
        far = {
            parent: [
                divergence(theirs, ours)
                for (_, theirs), (_, ours) in zip(batch.parts(of(*inputs)), own, strict=True)
            ]
            for parent, of in parents.items()
        }
        for place, (window, logits) in enumerate(own):
            told = {parent: divergences[place] for parent, divergences in far.items()}
            yield window, Reading(total_of(logits, window), window.n, told)


def divergence(parent: Tensor, model: Tensor) -> float:
    """Return `KL(parent || model)` summed over positions, from their logits."""
    total = torch.zeros((), dtype=torch.float64, device=parent.device)
    for start in range(0, len(parent), _POSITIONS):
        rows = slice(start, start + _POSITIONS)
        p = parent[rows].float().log_softmax(dim=-1)
        q = model[rows].float().log_softmax(dim=-1)
        # A word that the parent never writes counts nothing, whatever the model makes of it.
        terms = torch.where(p > -torch.inf, p.exp() * (p - q), 0.0)
        total += terms.sum(dim=-1).clamp_min(0.0).double().sum()  # below 0: rounding
    return float(total)


def total_of(logits: Tensor, window: Window) -> float:
    """Return the logarithm of the probability of a window's tokens, from their logits."""
    tokens = _tokens(window, logits)
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for start in range(0, len(logits), _POSITIONS):
        rows = slice(start, start + _POSITIONS)
        logs = logits[rows].float().log_softmax(dim=-1)
        total += logs.gather(-1, tokens[rows, None]).double().sum()
    return float(total)


def _tokens(window: Window, like: Tensor) -> Tensor:
    """Return the tokens whose probability counts."""
    return torch.tensor(window.ids[len(window.ids) - window.n :], device=like.device)


def _likelihood(logs: Tensor, window: Window) -> Likelihood:
    tokens = _tokens(window, logs)
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


def together(parts: Sequence[Reading]) -> Reading:
    """Return how a text is read from its windows."""
    parents = parts[0].divergences if parts else ()
    return Reading(
        sum(part.total for part in parts),
        sum(part.n_tokens for part in parts),
        {parent: sum(part.divergences[parent] for part in parts) for parent in parents},
    )


def reading_in(text: str) -> Reading:
    """Return the reading that an answer to a text consists of."""
    total, n_tokens, divergences = json.loads(text)
    return Reading(total, n_tokens, {int(parent): far for parent, far in divergences.items()})
