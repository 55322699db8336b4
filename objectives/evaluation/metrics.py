"""Objective values and their standard errors, from one candidate's answers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from .backend import FinishReason


@dataclass(frozen=True)
class Answer:
    """What one question's answer contributes.

    Args:
        question_id: Unique within the study.
        correct: The scorer's verdict.
        n_tokens: Tokens generated, the stop token included.
        finish_reason: `stop`, or `length` if the answer was cut at the limit.
        text: The answer itself.
    """

    question_id: str
    correct: bool
    n_tokens: int
    finish_reason: FinishReason
    text: str


@dataclass(frozen=True)
class Metric:
    """An objective: the mean over answers of one number each.

    Args:
        name: The name used in specs.
        direction: Whether larger or smaller values are better.
        unit: For axes and tables.
        per_answer: The number that one answer contributes.
        standard_error: Of the mean, from all answers' numbers (at least one).
    """

    name: str
    direction: Literal["maximize", "minimize"]
    unit: str
    per_answer: Callable[[Answer], float]
    standard_error: Callable[[Sequence[float]], float]

    def estimate(self, answers: Sequence[Answer]) -> tuple[float, float]:
        """Return the value and its standard error."""
        numbers = [self.per_answer(answer) for answer in answers]
        return fmean(numbers), self.standard_error(numbers)


def share_error(hits: Sequence[float]) -> float:
    """Return the binomial standard error of a share.

    It is taken at the share shrunk by one hit and one miss (Laplace), so that 0 of `n` and `n`
    of `n` do not claim to be exact.
    """
    n = len(hits)
    shrunk = (sum(hits) + 1) / (n + 2)
    return math.sqrt(shrunk * (1 - shrunk) / n)


def count_error(counts: Sequence[float]) -> float:
    """Return the standard error of a mean count.

    A sample without spread gets the error that one differing answer would cause: `1 / n`.
    """
    n = len(counts)
    return max(stdev(counts) / math.sqrt(n) if n > 1 else 0.0, 1 / n)


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            name="accuracy",
            direction="maximize",
            unit="share of questions",
            per_answer=lambda answer: float(answer.correct),
            standard_error=share_error,
        ),
        Metric(
            name="tokens",
            direction="minimize",
            unit="mean generated tokens per answer",
            per_answer=lambda answer: float(answer.n_tokens),
            standard_error=count_error,
        ),
        Metric(
            name="truncation",
            direction="minimize",
            unit="share of answers cut at the limit",
            per_answer=lambda answer: float(answer.finish_reason == "length"),
            standard_error=share_error,
        ),
    )
}
