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


Estimate = tuple[float, float]


@dataclass(frozen=True)
class Metric:
    """An objective: how to compute it, and which way is better.

    Args:
        name: The name used in specs.
        direction: Whether larger or smaller values are better.
        unit: For axes and tables.
        estimate: Answers (at least one) -> (value, standard error).
    """

    name: str
    direction: Literal["maximize", "minimize"]
    unit: str
    estimate: Callable[[Sequence[Answer]], Estimate]


def proportion(hits: Sequence[bool]) -> Estimate:
    """Return a share and its binomial standard error.

    The error is taken at the share shrunk by one hit and one miss (Laplace), so that 0 of `n`
    and `n` of `n` do not claim to be exact.
    """
    n = len(hits)
    shrunk = (sum(hits) + 1) / (n + 2)
    return fmean(hits), math.sqrt(shrunk * (1 - shrunk) / n)


def mean(counts: Sequence[int]) -> Estimate:
    """Return the mean of counts and its standard error.

    A sample without spread gets the error that one differing answer would cause: `1 / n`.
    """
    n = len(counts)
    spread = stdev(counts) / math.sqrt(n) if n > 1 else 0.0
    return fmean(counts), max(spread, 1 / n)


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy",
            "maximize",
            "share of questions",
            lambda answers: proportion([a.correct for a in answers]),
        ),
        Metric(
            "tokens",
            "minimize",
            "mean generated tokens per answer",
            lambda answers: mean([a.n_tokens for a in answers]),
        ),
        Metric(
            "truncation",
            "minimize",
            "share of answers cut at the limit",
            lambda answers: proportion([a.finish_reason == "length" for a in answers]),
        ),
    )
}
