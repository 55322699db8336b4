"""What a task is: questions in disjoint splits, and how an answer is scored."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, get_args

from ....errors import SpecError
from ..backends.backend import Completion, Kind, Sampling
from ..backends.likelihood import Pair

logger = logging.getLogger(__name__)

Split = Literal["importance", "search", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

T = TypeVar("T")


@dataclass(frozen=True)
class Question:
    """One question, rendered.

    Args:
        id: Unique within its task.
        prompt: The user's message.
        answer: The reference.
        content: What is asked, without the words of a template around it. Defaults to "": the
            prompt.
        cluster: Questions of a task that share it belong together: one passage, or one question
            in several words. Defaults to "": it belongs to no other.
        pairs: Contexts and continuations whose likelihoods are compared instead of an answer.
        row: The line of its file, for scorers of the user's own.
        is_text: Whether the prompt is a text that is read, and not answered.
    """

    id: str
    prompt: str
    answer: str
    content: str = field(default="", compare=False)
    cluster: str = ""
    pairs: tuple[Pair, ...] = ()
    row: str = field(default="", compare=False)
    is_text: bool = False

    @property
    def content_hash(self) -> str:
        """Hash of what is asked, case and white space aside.

        Two questions that share it are the same question, in whatever task they are.
        """
        text = " ".join((self.content or self.prompt).casefold().split())
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Judge:
    """Asks the base model whether answers are right.

    Args:
        prompt: From a question and its answer to what is asked; None if the answer has no
            verdict, whatever anybody would say.
        sampling: How the base replies.
    """

    prompt: Callable[[Question, Completion], str | None]
    sampling: Sampling


@dataclass(frozen=True)
class Task:
    """A task's questions by split.

    Args:
        name: As in the spec.
        scorer: Says how answers are scored; part of what identifies a measurement.
        splits: Every split that has questions.
        score: From a question and its answer to a number, 1 for right, 0 for wrong.
        sampling: How its answers are generated. Defaults to None: as the study's.
        together: Where repeats vote: from a question and all its answers to the number that each
            of them counts. Defaults to None: each is scored alone.
        judge: Gives answers their scores once all are there. Defaults to None: `score` does.
    """

    name: str
    scorer: str
    splits: Mapping[Split, tuple[Question, ...]]
    score: Callable[[Question, Completion], float]
    sampling: Sampling | None = None
    together: Callable[[Question, Sequence[Completion]], float] | None = None
    judge: Judge | None = None

    @property
    def compares(self) -> bool:
        """Whether it compares likelihoods, or reads texts, and generates nothing."""
        return self.sampling is not None and not self.sampling.generates

    @property
    def reads(self) -> bool:
        """Whether its questions are texts that are read, and not answered."""
        return any(q.is_text for questions in self.splits.values() for q in questions)

    @property
    def kind(self) -> Kind:
        """What is done with its questions."""
        return "read" if self.reads else "compared" if self.compares else "generated"

    def content_hash(self, splits: Sequence[Split] = SPLITS) -> str:
        """Return `sha256:...` over everything that decides a score, for the given splits."""
        digest = hashlib.sha256(self.scorer.encode())
        if self.sampling is not None:
            digest.update(json.dumps(self.sampling.described(), sort_keys=True).encode())
        for split in splits:
            for question in self.splits.get(split, ()):
                decisive = [split, question.prompt, question.answer]
                decisive += [question.cluster] if question.cluster else []
                decisive += [json.dumps(question.pairs)] if question.pairs else []
                decisive += [question.row] if question.row else []
                digest.update(json.dumps(decisive).encode())
        return "sha256:" + digest.hexdigest()


def divide(
    members: Iterable[T], key: Callable[[T], str], fractions: Mapping[Split, float]
) -> dict[Split, list[T]]:
    """Cut a hashed order, so that neither a file's order nor its growth mixes splits.

    Members of one key, such as a question that a public data set has twice, stay together.
    """
    ordered = sorted(((key(member), member) for member in members), key=lambda pair: pair[0])
    keys = [name for name, _ in ordered]
    splits: dict[Split, list[T]] = {}
    start, total = 0, 0.0
    for split, fraction in fractions.items():
        total += fraction
        end = max(start, round(total * len(ordered)))
        while 0 < end < len(keys) and keys[end] == keys[end - 1]:
            end += 1
        splits[split] = [member for _, member in ordered[start:end]]
        start = end
    return splits


def without_copies(questions: Sequence[Question], where: str) -> list[Question]:
    """Return questions without those that ask what another one does; say how many there were.

    Data sets hold copies. Counted twice they would weigh more, and on both sides of a cut they
    would be known before they are asked.
    """
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(question.content_hash, question)
    if n := len(questions) - len(first):
        logger.warning("%s: %d question(s) that are there twice count once", where, n)
    return list(first.values())


def with_own_ids(questions: Sequence[Question]) -> list[Question]:
    """Return questions whose ids are unique: a second one of a name gets its place added."""
    seen: set[str] = set()
    result = []
    for place, question in enumerate(questions, start=1):
        name = question.id
        while name in seen:  # also where a file has such names of its own
            name = f"{name}@{place}"
        seen.add(name)
        result.append(replace(question, id=name))
    return result


def check_splits(name: str, splits: Mapping[Split, Sequence[Question]]) -> None:
    """Check that every split of a task has questions.

    Raises:
        SpecError: If one has none.
    """
    for split, members in splits.items():
        if not members:
            raise SpecError(
                f"Every split of a task must have questions, but {split!r} of task {name!r} is "
                "empty. Add questions to its file or raise its fraction."
            )


def check_disjoint(tasks: Iterable[Task]) -> None:
    """Check that no question is in two splits, be it of one task or of two.

    Raises:
        SpecError: With the question and both places.
    """
    seen: dict[str, tuple[str, Split]] = {}
    for task in tasks:
        for split, questions in task.splits.items():
            for question in questions:
                other, at = seen.setdefault(question.content_hash, (task.name, split))
                if at != split:
                    raise SpecError(
                        f"Splits must be disjoint, but a question is in {at!r} of task {other!r} "
                        f"and in {split!r} of task {task.name!r}: {question.prompt[:60]!r}. "
                        "Remove it from one."
                    )
