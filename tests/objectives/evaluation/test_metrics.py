"""Values and standard errors against hand calculations."""

import math

import numpy as np
import pytest

from mergefront.objectives.evaluation import METRICS, Answer
from mergefront.objectives.evaluation.metrics import count_error, share_error


def _answer(correct: bool, n_tokens: int, finish: str = "stop") -> Answer:
    return Answer("t/q", "t", float(correct), n_tokens, finish, "")  # type: ignore[arg-type]


ANSWERS = [_answer(True, 2), _answer(True, 4), _answer(False, 6), _answer(False, 8, "length")]


def test_accuracy_is_a_share_with_a_shrunk_binomial_error() -> None:
    value, error = METRICS["accuracy"].estimate(ANSWERS)
    assert value == 0.5
    assert error == pytest.approx(math.sqrt(0.5 * 0.5 / 4))  # (2 + 1) / (4 + 2) = 0.5


def test_tokens_is_a_mean_with_the_sample_error() -> None:
    value, error = METRICS["tokens"].estimate(ANSWERS)
    assert value == 5.0
    assert error == pytest.approx(math.sqrt(20 / 3) / 2)  # squares 9+1+1+9 over n-1, root n = 2


def test_truncation_counts_answers_cut_at_the_limit() -> None:
    assert METRICS["truncation"].estimate(ANSWERS)[0] == 0.25


def test_errors_are_never_zero() -> None:
    assert share_error(np.ones(98)) == pytest.approx(math.sqrt(0.99 * 0.01 / 98))
    assert count_error(np.full(50, 3.0)) == 1 / 50
    assert count_error(np.array([3.0])) == 1.0


def test_directions_are_what_users_want() -> None:
    better = {name for name, metric in METRICS.items() if metric.direction == "maximize"}
    assert better == {"accuracy", "throughput"}
