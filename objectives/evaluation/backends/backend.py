"""What every inference engine must do for a search: swap weights, generate, count."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ....errors import EvaluationError
from ...merging import MergeSettings
from .likelihood import Likelihood, Pair, Reading
from .reasoning import MARKERS, Markers, Reasoning, answer_start

FinishReason = Literal["stop", "length"]
# What a task does with its questions: answers are generated, choices are compared by their
# likelihoods, or texts are read.
Kind = Literal["generated", "compared", "read"]


# Messages in order, each with `role` and `content`; the last one is the user's.
Conversation = Sequence[Mapping[str, str]]


@dataclass(frozen=True)
class ChatSettings:
    """What a chat template is given beside the question.

    Args:
        system: The first message. Defaults to None: there is none.
        kwargs: Variables of the template, such as `enable_thinking`.
    """

    system: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Models:
    """The parents, as local directories.

    Args:
        base: Weight 0.
        experts: Weight 1 each.
        dtype: Name of the torch dtype that all are loaded in.
        merge: How candidates are parametrised.
        reasoning: How an answer's reasoning is told from its final answer.
        stop_tokens: Ids that end an answer. Defaults to (): those of all parents.
        chat_template: Its source. Defaults to None: the base's.
        chat: What the template is given.
    """

    base: Path
    experts: tuple[Path, ...]
    dtype: str = "bfloat16"
    merge: MergeSettings = field(default_factory=MergeSettings)
    reasoning: Reasoning = field(default_factory=Reasoning)
    stop_tokens: tuple[int, ...] = ()
    chat_template: str | None = None
    chat: ChatSettings = field(default_factory=ChatSettings)


@dataclass(frozen=True)
class Sampling:
    """How answers are generated: greedily and once, unless it says otherwise.

    Args:
        max_new_tokens: Of an answer; 0 where likelihoods are compared instead.
        stop: Texts that end an answer; the first one that occurs is its last part.
        chat: Whether prompts are messages, rendered by the base's chat template if it has one, or
            complete texts.
        temperature: Logits are divided by it; 0 takes the most probable token.
        top_p: Tokens are drawn from the most probable ones that together have this probability.
        top_k: Tokens are drawn from so many; 0 for all.
        min_p: Tokens are drawn from those at least this times as probable as the most probable.
        repetition_penalty: Logits of tokens that occurred, in the prompt too, are divided by it
            (multiplied, if negative); 1 changes nothing.
        repeats: Answers to each question.
        seed: Of the draws.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    chat: bool = True
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    repeats: int = 1
    seed: int = 0

    @property
    def generates(self) -> bool:
        """Whether anything is generated; else likelihoods are compared."""
        return self.max_new_tokens > 0

    @property
    def is_random(self) -> bool:
        """Whether two answers to one question may differ."""
        return self.temperature > 0

    @property
    def drawing(self) -> dict[str, float]:
        """Return what decides how tokens are drawn and is not as in greedy decoding."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        defaults = Sampling(1)
        return {n: getattr(self, n) for n in names if getattr(self, n) != getattr(defaults, n)}

    def described(self) -> dict[str, Any]:
        """Return all of it, as far as it is not the default; the limit always."""
        defaults = asdict(Sampling(self.max_new_tokens))
        changed = {k: v for k, v in asdict(self).items() if v != defaults[k]}
        return {"max_new_tokens": self.max_new_tokens, **changed}

    def seed_of(self, question: str, repeat: int) -> int:
        """Return the seed of one answer: that of no other question, repeat or study."""
        text = json.dumps([self.seed, question, repeat]).encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Completion:
    """One generated answer.

    Args:
        text: The answer without the stop token, special tokens such as `<think>` kept.
        n_tokens: Tokens generated, the stop token included.
        finish_reason: `stop`, or `length` if the answer was cut at the limit.
        n_think_tokens: Of `n_tokens`, those up to the end of the reasoning.
        seconds: From the first look at the prompt to the end of the answer; not compared.
        unclosed: Whether it ended within reasoning that no marker of its own opened: the prompt
            did, or nobody.
        markers: What opens and closes reasoning.
    """

    text: str
    n_tokens: int
    finish_reason: FinishReason
    n_think_tokens: int = 0
    seconds: float = field(default=0.0, compare=False)
    unclosed: bool = field(default=False, compare=False)
    markers: tuple[Markers, ...] = field(default=MARKERS, compare=False, repr=False)


def final_answer(completion: Completion) -> str | None:
    """Return what follows the reasoning; None for an answer cut inside it.

    - Behind the last marker that closes reasoning is the final answer, whoever opened it.
    - Reasoning that the model opened and did not close has none, however it ended.
    - Reasoning that the prompt opened has none, unless the model ended it with a stop token of its
      own: it did not think, and answered.
    - Without any marker, an answer cut at the limit has none where a parent reasons (see
      `Reasoning.unmarked`). Every other is its own final answer.
    """
    start = answer_start(completion.text, completion.markers)
    if start is None or (start == 0 and completion.unclosed):
        return None
    return completion.text[start:]


# Called with each answer as it ends, and its prompt's place among the prompts.
Finished = Callable[[int, Completion], None]


class Backend(Protocol):
    """An inference engine whose weights can be swapped between candidates."""

    def load(self, models: Models) -> None:
        """Load the parents; they stay resident."""

    def apply(self, weights: Mapping[str, Sequence[float]]) -> float:
        """Make the engine's model the candidate; return the seconds it took.

        Args:
            weights: For every group of the merge plan, one number per expert.
        """

    def generate(
        self,
        prompts: Sequence[str | Conversation],
        sampling: Sampling,
        finished: Finished | None = None,
        seeds: Sequence[int] = (),
    ) -> list[Completion]:
        """Answer the prompts.

        Args:
            prompts: Messages, conversations or complete texts.
            sampling: How they are answered.
            finished: Called with each answer once, before this returns.
            seeds: Of each answer, where they are drawn. An answer depends on its prompt and its
                seed, not on those it is generated with. Defaults to the prompts' places.
        """

    def loglikelihood(
        self, pairs: Sequence[Pair], finished: Callable[[int, Likelihood], None] | None = None
    ) -> list[Likelihood]:
        """Return how probable each continuation is; nothing is generated.

        Args:
            pairs: Contexts and continuations.
            finished: Called with each result once, before this returns.
        """

    def read(
        self,
        texts: Sequence[str],
        parents: Sequence[int] = (),
        finished: Callable[[int, Reading], None] | None = None,
    ) -> list[Reading]:
        """Return how probable whole texts are, and how far the model is from its parents.

        Args:
            texts: With a token at least; long ones are read in windows of `text_window` tokens.
            parents: Whose divergence is wanted: 0 the base, 1 the first expert, and so on.
            finished: Called with each result once, before this returns.

        Raises:
            EvaluationError: If the engine cannot tell divergences.
        """

    @property
    def text_window(self) -> int:
        """Tokens of a text that `read` reads at once; what it returns depends on it."""

    def checksum(self) -> str:
        """Return a hash of the weights that the engine would use now."""

    def close(self) -> None:
        """Release the models."""


def as_answer(likelihoods: Sequence[Likelihood]) -> Completion:
    """Return likelihoods as an answer; `likelihoods_in` reads them again.

    Raises:
        EvaluationError: If one is no number: compared, it would count as the best or the worst.
    """
    if any(math.isnan(each.total) for each in likelihoods):
        raise EvaluationError(
            "A continuation must have a probability, but this candidate's logits are not finite. "
            "Lower the merge weights (`merge.bounds`), or choose another `models.dtype`."
        )
    rows = [[each.total, each.is_greedy, each.n_tokens] for each in likelihoods]
    return Completion(json.dumps(rows), 0, "stop")


def as_text_answer(reading: Reading) -> Completion:
    """Return how a text was read as an answer; `reading_in` reads it again."""
    content = [reading.total, reading.n_tokens, dict(reading.divergences)]
    return Completion(json.dumps(content), 0, "stop")
