"""Values and standard errors against hand calculations."""

import math

import numpy as np
import pytest

from mergefront.objectives.evaluation import (
    METRICS,
    Answer,
    Constraint,
    ObjectiveMetric,
    TaskShare,
)
from mergefront.objectives.evaluation.estimators import count_error, percentiles, share_error


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


def test_a_percentile_is_the_smallest_number_that_the_share_keeps_to() -> None:
    answers = [_answer(True, n) for n in range(1, 101)]
    assert METRICS["tokens_p90"].estimate(answers)[0] == 90
    assert METRICS["tokens_p50"].estimate(answers)[0] == 50
    numbers, twice_the_last = np.array([3.0, 1.0, 2.0]), np.array([[1.0, 1.0, 2.0]])
    assert percentiles(0.5)(numbers, twice_the_last)[0] == 2.0


def test_a_percentiles_error_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.geometric(0.1, size=(400, 200))
    medians = [np.sort(row)[99] for row in drawn]
    _, error = METRICS["tokens_p50"].estimate([_answer(True, int(n)) for n in drawn[0]])
    assert error == pytest.approx(np.std(medians), rel=0.5)


def _of(task: str, *scores: float) -> list[Answer]:
    return [Answer(f"{task}/{i}", task, score, 10, "stop", "") for i, score in enumerate(scores)]


def test_tasks_count_by_weight_between_their_anchors_whatever_their_numbers() -> None:
    answers = _of("a", 1, 1, 0, 0) + _of("b", 1)
    assert ObjectiveMetric(METRICS["accuracy"]).estimate(answers)[0] == pytest.approx(0.75)
    shares = {"a": TaskShare(3.0, (0.4, 0.6)), "b": TaskShare(1.0)}
    value, error = ObjectiveMetric(METRICS["accuracy"], shares=shares).estimate(answers)
    assert value == pytest.approx(0.75 * (0.5 - 0.4) / 0.2 + 0.25 * 1.0)
    alone = [METRICS["accuracy"].estimate(part)[1] for part in (answers[:4], answers[4:])]
    assert error == pytest.approx(math.hypot(0.75 / 0.2 * alone[0], 0.25 * alone[1]))
    assert ObjectiveMetric(METRICS["tokens"], shares=shares).estimate(answers)[0] == 10.0


def test_one_task_alone_is_as_it_was_measured() -> None:
    shares = {"a": TaskShare(3.0, (0.4, 0.6))}
    objective = ObjectiveMetric(METRICS["accuracy"], "a", shares)
    assert objective.name == "accuracy/a"
    assert objective.estimate(_of("a", 1, 0) + _of("b", 1))[0] == 0.5


def test_constraints_are_kept_at_zero_or_less() -> None:
    answers = [_answer(True, 2), _answer(True, 4, "length")]
    at_most = Constraint(ObjectiveMetric(METRICS["truncation"]), 1, 0.2)
    at_least = Constraint(ObjectiveMetric(METRICS["tokens"]), -1, 2.5)
    assert at_most.name == "truncation <= 0.2"
    assert at_most.estimate(answers)[0] == pytest.approx(0.3)
    assert at_least.name == "tokens >= 2.5"
    assert at_least.estimate(answers)[0] == pytest.approx(-0.5)


def test_a_percentiles_error_does_not_follow_the_tail() -> None:
    """A tenth of the answers at the limit: the median is as certain as it is without them."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(100, 300, size=(2000, 200))
    drawn[:, :20] = 32768
    truth = float(np.median(drawn, axis=1).std())
    for sample in drawn[:5]:
        _, error = METRICS["tokens_p50"].estimate([_answer(True, int(n)) for n in sample])
        assert truth / 2 < error < 2 * truth
