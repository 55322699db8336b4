"""Objective values and their standard errors, from one candidate's answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy.stats import t

from .backends.backend import FinishReason, Kind
from .clusters import Clusters, Components, Numbers, components, numbered, share_interval
from .estimators import means, no_error, share_error


@dataclass(frozen=True)
class Answer:
    """What one answer to a question contributes.

    Args:
        question_id: Unique within the study; begins with the task's name.
        task: Name of the task.
        score: The scorer's verdict: 1 for right, 0 for wrong, or what lies between.
        n_tokens: Tokens generated, the stop token included.
        finish_reason: `stop`, or `length` if the answer was cut at the limit.
        text: The answer itself.
        n_think_tokens: Of `n_tokens`, those of the reasoning, its markers included.
        seconds: From the first look at the question to the end of the answer; not compared.
        repeat: Which of the question's answers it is, from 0.
        cluster: Questions of a task that share it belong together. Defaults to "": the question
            is a cluster of its own.
        signs: What is wrong with it, whatever its score: of `SIGNS`.
        model_bytes: What the weights of the model that gave it take; 0 where nobody asks.
    """

    question_id: str
    task: str
    score: float
    n_tokens: int
    finish_reason: FinishReason
    text: str
    n_think_tokens: int = 0
    seconds: float = field(default=0.0, compare=False)
    repeat: int = 0
    cluster: str = ""
    signs: tuple[str, ...] = field(default=(), compare=False)
    model_bytes: int = field(default=0, compare=False)


def clusters_of(answers: Sequence[Answer]) -> Clusters | None:
    """Return each answer's cluster as a number; None if no two answers share one."""
    if not any(answer.repeat or answer.cluster for answer in answers):
        return None
    return numbered([f"{a.task}\n{a.cluster}" if a.cluster else a.question_id for a in answers])


@dataclass(frozen=True)
class Metric:
    """A number that a candidate gets from all answers of a task.

    Args:
        name: The name used in specs.
        direction: Whether larger or smaller values are better.
        unit: For axes and tables.
        per_answer: The number that one answer contributes; of a ratio, what it adds above and
            below the line.
        standard_error: Of the statistic, from all answers' numbers (at least one) and clusters.
        statistic: From the answers' numbers and how often each counts. Defaults to the mean.
        normalized: Whether tasks' anchors apply.
        kinds: Of the tasks that have it.
        parent: Whose divergence is needed: 0 the base, 1 the first expert. Defaults to None: none.
    """

    name: str
    direction: Literal["maximize", "minimize"]
    unit: str
    per_answer: Callable[[Answer], float | tuple[float, float]]
    standard_error: Callable[[Numbers, Clusters | None], float]
    statistic: Callable[[Numbers, Numbers], Numbers] = means
    normalized: bool = False
    kinds: tuple[Kind, ...] = ("generated",)
    parent: int | None = None

    def numbers(self, answers: Sequence[Answer]) -> Numbers:
        """Return one number per answer; of a ratio two, in columns."""
        return np.array([self.per_answer(answer) for answer in answers], dtype=np.float64)

    def estimate(self, answers: Sequence[Answer]) -> tuple[float, float]:
        """Return the value and its standard error, tasks aside."""
        numbers = self.numbers(answers)
        value = self.statistic(numbers, np.ones((1, len(numbers))))
        return float(value[0]), self.standard_error(numbers, clusters_of(answers))

    @property
    def is_exact(self) -> bool:
        """Whether the value is known without asking anything."""
        return self.standard_error is no_error

    @property
    def is_share(self) -> bool:
        """Whether values are means of numbers within [0, 1]."""
        return self.standard_error is share_error


@dataclass(frozen=True)
class TaskShare:
    """What a task counts in a mean over tasks.

    Args:
        weight: Relative to the other tasks'.
        anchors: Scores that count as 0 and 1.
    """

    weight: float = 1.0
    anchors: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class ObjectiveMetric:
    """A metric of one task, or its weighted mean over tasks.

    The mean is over tasks, not over questions: a task with many questions counts no more. Scores
    are first measured between the task's anchors, `(score - low) / (high - low)`, so that a task
    on which the parents differ little is not drowned by one on which they differ much.

    Args:
        metric: What is measured on each task.
        task: The only task that counts. Defaults to None: all.
        shares: Task -> what it counts; tasks not named count alike.
        kinds: Task -> what it does; tasks not named generate. A mean is over those that have the
            metric: tokens are not counted where nothing is generated.
    """

    metric: Metric
    task: str | None = None
    shares: Mapping[str, TaskShare] = field(default_factory=dict)
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name used in specs: `metric`, or `metric/task`."""
        return self.metric.name if self.task is None else f"{self.metric.name}/{self.task}"

    @property
    def range(self) -> tuple[float, float]:
        """Return the least and the largest value that any model can have; scores have anchors."""
        rescaled = any(share.anchors != TaskShare().anchors for share in self.shares.values())
        if self.metric.normalized and self.task is None and rescaled:
            return -math.inf, math.inf
        return 0.0, 1.0 if self.metric.is_share else math.inf

    def counts(self, task: str) -> bool:
        """Whether a task has the metric, and counts."""
        kind = self.kinds.get(task, "generated")
        return task == self.task if self.task is not None else kind in self.metric.kinds

    def estimate(self, answers: Sequence[Answer]) -> tuple[float, float]:
        """Return the value and its standard error.

        Args:
            answers: With at least one to the task, or to any if all tasks count.
        """
        value = self.resampled(answers, np.ones((1, len(answers))))
        variance = 0.0
        for rows, scale, _ in self._parts([answer.task for answer in answers]):
            chosen = [answers[row] for row in rows]
            error = self.metric.standard_error(self.metric.numbers(chosen), clusters_of(chosen))
            variance += (scale * error) ** 2
        return float(value[0]), math.sqrt(variance)

    def interval(self, answers: Sequence[Answer], level: float = 0.95) -> tuple[float, float]:
        """Return the interval that holds the value with probability `level`.

        Shares of one task are Beta-Binomial, all else is Student's t over clusters.
        """
        parts = self._parts([answer.task for answer in answers])
        if len(parts) == 1 and self.metric.is_share:
            (rows, scale, low) = parts[0]
            chosen = [answers[row] for row in rows]
            ends = share_interval(self.metric.numbers(chosen), clusters_of(chosen), level)
            return scale * (ends[0] - low), scale * (ends[1] - low)
        value, error = self.estimate(answers)
        n_free = sum(_n_clusters([answers[row] for row in rows]) - 1 for rows, _, _ in parts)
        reach = float(t.ppf((1 + level) / 2, max(n_free, 1))) * error
        return value - reach, value + reach

    def components(self, answers: Sequence[Answer]) -> Components | None:
        """Return how much answers differ between and within questions, over all tasks.

        None where questions have one answer each, or several tasks differ in repeats.
        """
        between = within = 0.0
        # Texts are read once and vary in nothing that is asked.
        n_asked = sum(self.kinds.get(answer.task) != "read" for answer in answers)
        for rows, scale, _ in self._parts([answer.task for answer in answers]):
            questions = numbered([answers[row].question_id for row in rows])
            if questions is None:
                return None
            part = components(self._numbers(answers, rows), questions)
            if part is None:
                return None
            weight = scale**2 * n_asked / len(rows)
            between, within = between + weight * part.between, within + weight * part.within
        return Components(between, within)

    def resampled(self, answers: Sequence[Answer], counts: Numbers) -> Numbers:
        """Return the value under each row of counts.

        Args:
            answers: `q` of them.
            counts: `r x q`-dim: how often each answer counts in each of `r` resamples.
        """
        total = np.zeros(len(counts))
        for rows, scale, low in self._parts([answer.task for answer in answers]):
            value = self.metric.statistic(self._numbers(answers, rows), counts[:, rows])
            total += scale * (value - low)
        return total

    def question_mean(self, answers: Sequence[Answer] | None) -> float | None:
        """Return what a question counts, its repeats' mean; None if it was not asked."""
        return None if answers is None else float(self.metric.numbers(answers).mean())

    def weights(self, tasks: Sequence[str]) -> Numbers:
        """Return what each answer's number counts in the value; for means alone.

        Args:
            tasks: The task of every answer.
        """
        weights = np.zeros(len(tasks))
        for rows, scale, _ in self._parts(tasks):
            weights[rows] = scale / len(rows)
        return weights

    def _parts(self, tasks: Sequence[str]) -> list[tuple[list[int], float, float]]:
        """Return each task's rows, and the factor and origin of its values."""
        by_task: dict[str, list[int]] = {}
        for row, task in enumerate(tasks):
            by_task.setdefault(task, []).append(row)
        if self.task is not None:
            return [(by_task[self.task], 1.0, 0.0)]
        by_task = {task: rows for task, rows in by_task.items() if self.counts(task)}
        shares = {task: self.shares.get(task, TaskShare()) for task in by_task}
        total = sum(share.weight for share in shares.values())
        parts = []
        for task, rows in by_task.items():
            low, high = shares[task].anchors if self.metric.normalized else (0.0, 1.0)
            parts.append((rows, shares[task].weight / total / (high - low), low))
        return parts

    def _numbers(self, answers: Sequence[Answer], rows: Sequence[int]) -> Numbers:
        return self.metric.numbers([answers[row] for row in rows])


@dataclass(frozen=True)
class Constraint:
    """What a candidate must keep to.

    Args:
        objective: What is limited.
        sign: 1 for at most, -1 for at least.
        bound: The limit.
    """

    objective: ObjectiveMetric
    sign: Literal[1, -1]
    bound: float

    @property
    def name(self) -> str:
        """As it is written in specs, e.g. `truncation <= 0.05`."""
        return f"{self.objective.name} {'<=' if self.sign > 0 else '>='} {self.bound:g}"

    def estimate(self, answers: Sequence[Answer]) -> tuple[float, float]:
        """Return by how much it is violated, at most 0 if it is kept, and the standard error."""
        value, error = self.objective.estimate(answers)
        return self.sign * (value - self.bound), error


def _n_clusters(answers: Sequence[Answer]) -> int:
    clusters = clusters_of(answers)
    return len(answers) if clusters is None else int(clusters.max()) + 1
