"""Rotating questions: each candidate answers its share of a pool, dealt like cards.

All candidates on the same few questions share what is peculiar to those: a search then learns the
questions. Dealt from a larger pool, what is peculiar differs from candidate to candidate, and what
makes a question hard or long is found and taken off (equating; `samplers/_trials/equating.py`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .estimators import means
from .metrics import Answer, ObjectiveMetric

# Share of the pool that a candidate answers: four times as many questions as are asked bring most
# of what more would (docs/benchmarks/sampler.md).
_SHARE = 0.25
# Of every task, as far as it has them: fewer leave no standard error.
_FEWEST = 4


@dataclass(frozen=True)
class Hand:
    """The questions of one candidate; takes the place of a race that nobody leaves.

    Args:
        blocks: Places of the questions: one block.
    """

    blocks: list[list[int]]

    def is_whole(self, n_asked: int) -> bool:
        """Whether so many questions are a whole measurement."""
        return True

    def goes_on(self, asked: Sequence[int], numbers: Any) -> bool:
        """Whether a candidate is asked the next block."""
        return True


class Rotation:
    """Deals hands of questions; every task's are dealt from a deck of its own.

    A deck is shuffled, dealt to its end, and shuffled again: all questions are asked equally
    often, but for one. Hands depend on the seed and the candidate's number alone, so all workers
    deal the same.

    Args:
        tasks: Name of each question's task.
        pool: Questions in the pool, spread over the tasks by their sizes. Defaults to None: all.
        seed: Of the study.
        share: Of the pool that a candidate answers.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        pool: int | None = None,
        seed: int = 0,
        share: float = _SHARE,
    ) -> None:
        of_all = 1.0 if pool is None else pool / len(tasks)
        self._decks = [
            _Deck([i for i, t in enumerate(tasks) if t == task], of_all, share, [seed, 41, k])
            for k, task in enumerate(dict.fromkeys(tasks))
        ]

    @property
    def n_asked(self) -> int:
        """Questions of one candidate."""
        return sum(deck.n_asked for deck in self._decks)

    @property
    def n_pool(self) -> int:
        """Questions of the pool."""
        return sum(len(deck.places) for deck in self._decks)

    def hand(self, number: int) -> Hand:
        """Return the questions of the candidate with this number, from 0."""
        return Hand([sorted(place for deck in self._decks for place in deck.hand(number))])


class _Deck:
    """One task's questions.

    Args:
        places: Of its questions.
        of_all: Share of them that is in the pool, drawn by lot.
        share: Of the pool that a candidate answers.
        seed: Of the shuffling.
    """

    def __init__(
        self, places: Sequence[int], of_all: float, share: float, seed: list[int]
    ) -> None:
        self._rng = np.random.default_rng(seed)
        size = min(len(places), max(round(of_all * len(places)), min(_FEWEST, len(places))))
        self.places = self._rng.choice(places, size=size, replace=False).tolist()
        self.n_asked = min(size, max(round(share * size), _FEWEST))
        self._hands: list[list[int]] = []
        self._left: list[int] = []

    def hand(self, number: int) -> list[int]:
        while len(self._hands) <= number:
            self._hands.append(self._deal())
        return self._hands[number]

    def _deal(self) -> list[int]:
        """Take the next cards; one that the hand has already stays for the next."""
        if len(self._left) < self.n_asked:
            self._left += self._rng.permutation(self.places).tolist()
        hand = list(dict.fromkeys(self._left))[: self.n_asked]
        for place in hand:
            self._left.remove(place)
        return hand


def answers_attribute(
    metrics: Sequence[ObjectiveMetric], answers: Sequence[Answer]
) -> dict[str, list[Any]]:
    """Return the user attribute `answers`, from which values are equated.

    Args:
        metrics: The objectives.
        answers: To the candidate's questions.

    Returns:
        `questions`: ids; `values`: for each objective one number a question, in its unit, None
        where it says nothing of it; `tasks`: each question's, if there are several. An objective
        is the sum over tasks of the mean of its numbers.
    """
    told: dict[str, list[Any]] = {
        "questions": [answer.question_id for answer in answers],
        "values": [_contributions(metric, answers) for metric in metrics],
    }
    tasks = [answer.task for answer in answers]
    return {**told, "tasks": tasks} if len(set(tasks)) > 1 else told


def _contributions(objective: ObjectiveMetric, answers: Sequence[Answer]) -> list[float | None]:
    """Return what each answer contributes to an objective; None for all where it is no mean."""
    if objective.metric.statistic is not means:
        return [None] * len(answers)
    tasks = [answer.task for answer in answers]
    counts = Counter(tasks)
    weights, numbers = objective.weights(tasks), objective.metric.numbers(answers)
    value = float(objective.resampled(answers, np.ones((1, len(answers))))[0])
    # Where scores are counted from anchors, every task gets its part of what that takes off.
    offset = (value - float(weights @ numbers)) / len(
        {t for t, w in zip(tasks, weights, strict=True) if w}
    )
    return [
        float(weight * counts[task] * number + offset) if weight else None
        for task, weight, number in zip(tasks, weights, numbers, strict=True)
    ]
