"""Racing: how many questions a candidate is asked depends on how it does.

Questions are asked in one order for all candidates, so that two candidates are compared on the
very same questions. The order is made of the answers of the first models (parents and uniform
merges): questions are sorted by how hard and how long they are, and taken from all over that
list, so that the first of them are a small picture of the whole, and a candidate that is stopped
early has values that are uncertain but not biased. Compare MERGE3 (arXiv 2502.10436) and Evo-L2S
(arXiv 2604.06465), which choose one subset for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from . import ObjectiveMetric
from .clusters import numbered

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RaceSettings:
    """How many questions candidates are asked.

    Args:
        share: Of the questions, for a candidate of which nothing is special.
        strong_share: For one that none is better than in every objective; at least `share`.
        blocks: Shares, increasing and below `share`, after which a candidate is stopped if
            another, that breaks no constraint, is clearly better in every objective.
        margin: What is clear: this many standard errors of the difference.
    """

    share: float = 0.4
    strong_share: float = 0.4
    blocks: tuple[float, ...] = ()
    margin: float = 0.5


@dataclass(frozen=True)
class Race:
    """One candidate's race against those measured before.

    Args:
        settings: When it is stopped.
        objectives: Means over answers, all of them.
        tasks: Name of each question's task, `q` of them.
        first: Numbers of the first models: models x objectives x questions.
        rivals: Numbers of the models measured so far that may stop it, `r` x objectives x
            questions; not a number where a question was not asked.
        clusters: Name of each question's cluster. Defaults to none: every question is one.
    """

    settings: RaceSettings
    objectives: Sequence[ObjectiveMetric]
    tasks: Sequence[str]
    first: Array
    rivals: Array
    clusters: Sequence[str] = ()

    @cached_property
    def blocks(self) -> list[list[int]]:
        """The questions' places, block by block."""
        order = question_order(self.tasks, self.first)
        shares = (*self.settings.blocks, self.settings.share, self.settings.strong_share)
        cuts = [0, *(self._count(share) for share in shares)]
        return [order[start:end] for start, end in pairwise(cuts) if start < end]

    def is_whole(self, n_asked: int) -> bool:
        """Whether so many questions are a whole measurement."""
        return n_asked >= self._count(self.settings.share)

    def goes_on(self, asked: Sequence[int], numbers: Array) -> bool:
        """Whether a candidate is asked the next block.

        Args:
            asked: Places of the questions answered so far.
            numbers: Objectives x answers.
        """
        margin = 0.0 if self.is_whole(len(asked)) else self.settings.margin
        return not self._is_beaten(asked, numbers, margin)

    def _count(self, share: float) -> int:
        return max(len(set(self.tasks)), round(share * len(self.tasks)))

    def _is_beaten(self, asked: Sequence[int], numbers: Array, margin: float) -> bool:
        """Whether one rival is better in every objective, on the questions of both.

        In one that is known exactly, such as `memory`, as good is enough.
        """
        tasks = [self.tasks[place] for place in asked]
        weights = np.array([objective.weights(tasks) for objective in self.objectives])
        signs = np.array([o.metric.direction == "maximize" for o in self.objectives]) * 2 - 1
        theirs = self.rivals[:, :, list(asked)]
        theirs = theirs[~np.isnan(theirs).any(axis=(1, 2))]
        gains = signs[:, None] * (theirs - numbers) * weights * len(asked)
        errors, largest = self._errors(gains, asked)
        # No spread at all is no certainty: the error that one differing cluster would cause.
        floor = np.abs(weights).max(axis=1) * largest
        clear = gains.mean(axis=2) >= margin * np.maximum(errors, floor)
        better = gains.mean(axis=2) > 0
        exact = np.array([objective.metric.is_exact for objective in self.objectives])
        beaten = np.where(exact, gains.mean(axis=2) >= 0, clear & better)
        return bool((beaten.all(axis=1) & better.any(axis=1)).any())

    def _errors(self, gains: Array, asked: Sequence[int]) -> tuple[Array, int]:
        """Return the standard errors of mean gains, and the size of the largest cluster.

        Args:
            gains: Models x objectives x questions asked.
            asked: Their places.
        """
        clusters = numbered([self.clusters[place] for place in asked]) if self.clusters else None
        n = len(asked)
        if clusters is None:
            return gains.std(axis=2, ddof=1) / np.sqrt(n), 1
        members = np.eye(int(clusters.max()) + 1)[clusters]
        n_clusters = members.shape[1]
        sums = (gains - gains.mean(axis=2, keepdims=True)) @ members
        scale = n_clusters / max(n_clusters - 1, 1)
        return np.sqrt(scale * (sums**2).sum(axis=2)) / n, int(members.sum(axis=0).max())


def question_order(tasks: Sequence[str], first: Array) -> list[int]:
    """Return the order in which questions are asked.

    Args:
        tasks: Name of each question's task.
        first: Numbers of the first models: models x objectives x questions.

    Returns:
        Places of questions: one of every task, for values are means over all tasks; then the
        first `k` are spread evenly over the questions sorted by task and by the models' mean of
        each objective, for any `k` (a van der Corput sequence).
    """
    means = first.mean(axis=0)
    _, task_numbers = np.unique(list(tasks), return_inverse=True)
    by_difficulty = np.lexsort([*means[::-1], task_numbers])
    n_bits = max(1, (len(tasks) - 1).bit_length())
    reversed_bits = (int(f"{i:0{n_bits}b}"[::-1], 2) for i in range(2**n_bits))
    order = [int(by_difficulty[place]) for place in reversed_bits if place < len(tasks)]
    in_order = [tasks[place] for place in order]
    first_of_tasks = [order[in_order.index(task)] for task in dict.fromkeys(in_order)]
    return list(dict.fromkeys([*first_of_tasks, *order]))
