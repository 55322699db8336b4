"""What a fresh vLLM engine holds and answers, and whether a swapped one is the same.

A swap can go wrong in ways that its own loader repeats: packed copies that are not packed again,
buffers that nobody rewrites, decode graphs that read old addresses. So the reference is an engine
that has just read the checkpoint and has never swapped anything: every tensor of its modules, and
answers that it decoded token by token, through the graphs it decodes with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ....checkpoints import reads_base
from ..chat import Chat
from ..loading import load_expert

if TYPE_CHECKING:
    from .engine import Engine

PROMPTS = (
    "1 + 1 = ?",
    "Name a colour.",
    "Why?",
    "A train leaves at 9:40 and needs 35 minutes. When does it arrive?",
    "7 * 8 - 5",
    "Write one word.",
    "2a + 3a",
    "Which is larger, 0.9 or 0.11?",
)
N_TOKENS = 24
# Below it a difference of a token's log-probability is rounding, above it another model.
_ROUNDING = 1e-3
# What a token may fall short of transformers' best one, as a difference of logits, and by what its
# log-probability may depend on the answers generated with it. Other kernels round otherwise;
# another model, or a wrong kernel, is off by more.
_OTHER_ROUNDING = {"float32": 0.02, "bfloat16": 0.6, "float16": 0.2}

# Of one rank's tensors, by name: dtype, shape and hash.
Hashes = dict[str, str]
# Begins the names of tensors that no checkpoint holds: they are computed from the configuration.
COMPUTED = "~"


@dataclass(frozen=True)
class Answered:
    """Tokens that an engine decoded greedily, and their log-probabilities."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class Canary:
    """An engine's model, seen from outside.

    Args:
        weights: Hashes of every tensor, one mapping a rank.
        answers: To `PROMPTS`.
        tolerance: By how much log-probabilities of one token may differ between two runs.
        unsteady: Places of answers that this engine itself does not repeat; not compared.
    """

    weights: tuple[Hashes, ...]
    answers: tuple[Answered, ...]
    tolerance: float = _ROUNDING
    unsteady: frozenset[int] = frozenset()

    def difference(self, fresh: "Canary", state: frozenset[str] = frozenset()) -> str | None:
        """Say in what this engine differs from a fresh one; None if in nothing.

        Args:
            fresh: A fresh engine's.
            state: Names of tensors that may differ: generating alone changes them.
        """
        tensors = sorted(differing(self.weights, fresh.weights) - state)
        if tensors:
            shown = ", ".join(tensors[:3]) + (", ..." if len(tensors) > 3 else "")
            return f"{len(tensors)} tensor(s) differ: {shown}"
        steady = [i for i in range(len(fresh.answers)) if i not in fresh.unsteady]
        pairs = [(self.answers[i], fresh.answers[i]) for i in steady]
        tokens = sum(ours.tokens != theirs.tokens for ours, theirs in pairs)
        if tokens:
            return f"{tokens} of {len(pairs)} decoded answers differ"
        gap = max((_gap(ours, theirs) for ours, theirs in pairs), default=0.0)
        if gap > fresh.tolerance:
            return f"log-probabilities of decoded tokens differ by up to {gap:.2g}"
        return None


@dataclass(frozen=True)
class Repeatability:
    """Whether one model gives one answer.

    Args:
        n_answers: That were asked for twice.
        n_again: That differed when they were asked for again.
        n_reordered: That differed when they were asked for in another order.
        largest: Difference between log-probabilities of a token behind the same text.
    """

    n_answers: int
    n_again: int
    n_reordered: int
    largest: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether every answer was the same each time."""
        return self.n_again + self.n_reordered == 0

    def is_rounding(self, dtype: str) -> bool:
        """Whether what differs can come from rounding in another order."""
        return self.largest <= _OTHER_ROUNDING[dtype]

    def __str__(self) -> str:
        return (
            f"of {self.n_answers} answers {self.n_again} differed when they were asked for again, "
            f"{self.n_reordered} when they were asked for in another order"
        )


def ask(engine: "Engine", chat: Chat, order: Sequence[int] | None = None) -> tuple[Answered, ...]:
    """Return an engine's answers to `PROMPTS`, generated together in some order.

    Args:
        engine: Any.
        chat: Of the base.
        order: Of the prompts' indices. Defaults to None: as they are.
    """
    from vllm import SamplingParams

    order = range(len(PROMPTS)) if order is None else order
    limit = engine.max_length - N_TOKENS
    prompts = [chat.render(PROMPTS[i])[-limit:] for i in order]
    # Nothing ends an answer: every one is decoded to its last token.
    greedy = SamplingParams(
        temperature=0.0, max_tokens=N_TOKENS, ignore_eos=True, logprobs=0, detokenize=False
    )
    outputs = engine.generate(prompts, greedy)
    answers = {i: _answered(o.outputs[0]) for i, o in zip(order, outputs, strict=True)}
    return tuple(answers[i] for i in range(len(PROMPTS)))


def _answered(output: Any) -> Answered:
    tokens = tuple(output.token_ids)
    at = zip(tokens, output.logprobs, strict=True)
    return Answered(tokens, tuple(float(position[token].logprob) for token, position in at))


def repeatability(first: Sequence[Answered], *others: Sequence[Answered]) -> Repeatability:
    """Compare answers with those to the same prompts, asked again and asked in another order."""
    again, reordered = (
        sum(a.tokens != b.tokens for a, b in zip(first, other, strict=True)) for other in others
    )
    largest = max(_rift(a, b) for other in others for a, b in zip(first, other, strict=True))
    return Repeatability(len(first), again, reordered, largest)


def _rift(ours: Answered, theirs: Answered) -> float:
    """Return by how much log-probabilities differ as far as two answers are the same text."""
    pairs = zip(ours.tokens, theirs.tokens, strict=True)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(ours.tokens))
    told = zip(ours.logprobs[: same + 1], theirs.logprobs[: same + 1], strict=True)
    return max(abs(a - b) for a, b in told)


def fresh_canary(
    weights: Sequence[Hashes], first: Sequence[Answered], again: Sequence[Answered]
) -> Canary:
    """Return what a fresh engine is, from its tensors and its answers given twice."""
    pairs = list(zip(first, again, strict=True))
    unsteady = frozenset(i for i, (a, b) in enumerate(pairs) if a.tokens != b.tokens)
    gaps = [_gap(a, b) for a, b in pairs if a.tokens == b.tokens]
    tolerance = max([_ROUNDING, *(10 * gap for gap in gaps)])
    return Canary(tuple(weights), tuple(first), tolerance, unsteady)


def _gap(ours: Answered, theirs: Answered) -> float:
    return max(abs(a - b) for a, b in zip(ours.logprobs, theirs.logprobs, strict=True))


def differing(ours: Sequence[Hashes], theirs: Sequence[Hashes]) -> frozenset[str]:
    """Return the names of tensors that are not the same on some rank."""
    names: set[str] = set()
    for rank, other in zip(ours, theirs, strict=True):
        names |= {
            name for name, _ in rank.items() ^ other.items() if not _resized(name, rank, other)
        }
    return frozenset(names)


def without(hashes: Sequence[Hashes], names: frozenset[str]) -> list[Hashes]:
    """Return hashes without those of some tensors."""
    return [{name: rank[name] for name in rank.keys() - names} for rank in hashes]


def _resized(name: str, ours: Hashes, theirs: Hashes) -> bool:
    """Whether a computed tensor is of another size: parents may reach to different lengths."""
    if not name.startswith(COMPUTED):
        return False
    shapes = [hashes.get(name, "").rpartition(" ")[0] for hashes in (ours, theirs)]
    return shapes[0] != shapes[1]


def shortfall(
    directory: Path, base: Path, dtype: str, chat: Chat, answers: Sequence[Answered]
) -> str | None:
    """Say how an engine's answers differ from transformers', of an expert that reads the base.

    vLLM cannot load an adapter as a model of its own, and of a model with other padding it loads
    other rows than are merged: there is no fresh engine to compare with. Each decoded token must
    be transformers' best one at its place, or nearly so.

    Args:
        directory: Of the adapter, or of an expert whose padding differs.
        base: What it is added to, or whose rows count.
        dtype: Name of the torch dtype.
        chat: Of the base.
        answers: To `PROMPTS`.
    """
    assert reads_base(directory, base)
    model = load_expert(directory, base, dtype, "cpu")
    worst = 0.0
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        ids = [*chat.render(prompt), *answer.tokens]
        with torch.inference_mode():
            logits = model(torch.tensor([ids])).logits[0, -len(answer.tokens) - 1 : -1].float()
        taken = logits.gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
        worst = max(worst, float((logits.max(1).values - taken).max()))
    if worst <= _OTHER_ROUNDING[dtype]:
        return None
    return f"a decoded token's logit is {worst:.2g} below the best one in transformers"
