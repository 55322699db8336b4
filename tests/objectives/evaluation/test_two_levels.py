"""Errors with two levels: closed forms, coverage by simulation, limits."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from mergefront.objectives.evaluation import METRICS, Answer, ObjectiveMetric
from mergefront.objectives.evaluation.clusters import (
    Components,
    clustered_error,
    components,
    effective_size,
    numbered,
    resamples,
    share_interval,
)
from mergefront.objectives.evaluation.estimators import count_error, mean_error, share_error
from mergefront.objectives.evaluation.metrics import clusters_of
from mergefront.objectives.evaluation.racing import Race, RaceSettings
from mergefront.study.results.validation import resample_questions

Array = NDArray[np.float64]
G, M, CORRELATION = 50, 10, 0.7
CLUSTERS = np.repeat(np.arange(G), M)


def _answers(table: Array, task: str = "t") -> list[Answer]:
    """Return one answer a cell: a question a row, its repeats in the columns."""
    return [
        Answer(f"{task}/{i}", task, float(x), round(10 * float(x)), "stop", "", repeat=j)
        for i, row in enumerate(table)
        for j, x in enumerate(row)
    ]


def test_a_balanced_design_has_the_error_of_its_cluster_means() -> None:
    table = np.random.default_rng(0).normal(size=(G, M)) + np.arange(G)[:, None]
    expected = table.mean(axis=1).std(ddof=1) / math.sqrt(G)
    assert mean_error(table.ravel(), CLUSTERS) == pytest.approx(expected)
    assert count_error(table.ravel(), CLUSTERS) == pytest.approx(expected)
    value, error = METRICS["tokens"].estimate(_answers(np.round(table, 1)))
    means = np.round(table, 1).mean(axis=1)
    assert value == pytest.approx(10 * means.mean())
    assert error == pytest.approx(10 * means.std(ddof=1) / math.sqrt(G))


def test_the_order_of_answers_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    numbers, order = rng.normal(size=G * M), rng.permutation(G * M)
    shuffled = clustered_error(numbers[order], CLUSTERS[order])
    assert shuffled == pytest.approx(clustered_error(numbers, CLUSTERS))


def test_equal_repeats_say_no_more_than_one_answer() -> None:
    scores = (np.random.default_rng(2).random(40) < 0.7).astype(float)
    once = METRICS["accuracy"].estimate(_answers(scores[:, None]))
    often = METRICS["accuracy"].estimate(_answers(np.repeat(scores[:, None], 8, axis=1)))
    assert often == pytest.approx(once)
    assert share_error(scores) == once[1]


def test_independent_answers_count_each() -> None:
    rng = np.random.default_rng(3)
    sizes = [effective_size((rng.random(500) < 0.6).astype(float), CLUSTERS) for _ in range(200)]
    assert 400 < np.mean(sizes) <= 500


def test_no_spread_is_no_certainty() -> None:
    clusters = np.repeat(np.arange(8), 4)
    assert share_error(np.ones(32), clusters) == share_error(np.ones(8))
    assert count_error(np.full(32, 3.0), clusters) == 1 / 8
    assert mean_error(np.full(4, 3.0), np.zeros(4, dtype=np.int64)) == 3.0


def test_clusters_join_questions_within_a_task_and_repeats_within_a_question() -> None:
    passages = [Answer(f"a/{i}", "a", 1.0, 1, "stop", "", cluster=f"p{i // 2}") for i in range(4)]
    elsewhere = [Answer("b/0", "b", 1.0, 1, "stop", "", cluster="p0")]
    found = clusters_of([*passages, *elsewhere])
    assert found is not None
    assert found.tolist() == [0, 0, 1, 1, 2]
    assert numbered(["x", "y"]) is None


def _drawn(rng: np.random.Generator, share: float) -> Array:
    """Return right and wrong answers in clusters: Beta-Binomial with the correlation."""
    scale = 1 / CORRELATION - 1
    levels = rng.beta(share * scale, (1 - share) * scale, size=G)
    return (rng.random((G, M)) < levels[:, None]).astype(float)


def _bootstrapped(table: Array, seed: int) -> tuple[float, float]:
    numbers = table.ravel()
    counts = resamples(len(numbers), 400, seed, CLUSTERS)
    low, high = np.percentile(counts @ numbers / counts.sum(axis=1), (2.5, 97.5))
    return float(low), float(high)


def _naive(table: Array, seed: int) -> tuple[float, float]:
    reach = 1.96 * share_error(table.ravel())
    return float(table.mean()) - reach, float(table.mean()) + reach


def _ours(table: Array, seed: int) -> tuple[float, float]:
    return ObjectiveMetric(METRICS["accuracy"]).interval(_answers(table))


def _coverage(interval: Callable[[Array, int], tuple[float, float]], share: float) -> float:
    rng, n = np.random.default_rng(4), 1000
    kept = 0
    for seed in range(n):
        low, high = interval(_drawn(rng, share), seed)
        kept += low <= share <= high
    return kept / n


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_intervals_of_clustered_answers_hold_what_they_promise(share: float) -> None:
    assert 0.93 <= _coverage(_ours, share) <= 0.97
    assert 0.93 <= _coverage(_bootstrapped, share) <= 0.97
    assert _coverage(_naive, share) < 0.7


def test_a_few_answers_have_an_interval_that_holds() -> None:
    """Ten questions at a share of 0.95: the normal interval is [1, 1] in most samples."""
    rng, kept, naive = np.random.default_rng(5), 0, 0
    for share in rng.uniform(size=2000):
        scores = (rng.random(10) < share).astype(float)
        low, high = share_interval(scores)
        kept += low <= share <= high
        error = scores.std(ddof=1) / math.sqrt(10)
        naive += abs(scores.mean() - share) <= 1.96 * error
    assert 0.93 <= kept / 2000 <= 0.97
    assert naive / 2000 < 0.88
    low, high = share_interval(np.ones(10))
    assert high == pytest.approx(1.0, abs=0.01)
    assert low == pytest.approx(0.025 ** (1 / 11))  # Beta(11, 1)


def test_a_mean_has_students_interval_over_clusters() -> None:
    rng = np.random.default_rng(6)
    tokens, kept = ObjectiveMetric(METRICS["tokens"]), 0
    for _ in range(1000):
        table = rng.normal(5.0, 1.0, size=(8, 1)) + rng.normal(0.0, 0.5, size=(8, 4))
        low, high = tokens.interval(_answers(np.round(table, 1)))
        kept += low <= 50.0 <= high
    assert 0.93 <= kept / 1000 <= 0.97


def test_variance_components_are_found_and_predict_the_error() -> None:
    rng = np.random.default_rng(7)
    table = rng.normal(0, 2.0, size=(4000, 1)) + rng.normal(0, 3.0, size=(4000, 5))
    found = components(table.ravel(), np.repeat(np.arange(4000), 5))
    assert found is not None
    assert found.between == pytest.approx(4.0, rel=0.1)
    assert found.within == pytest.approx(9.0, rel=0.05)
    assert Components(4.0, 9.0).error(100, 1) == pytest.approx(math.sqrt(0.13))
    assert Components(4.0, 9.0).error(25, 4) > Components(4.0, 9.0).error(100, 1)
    assert components(np.ones(5), np.array([0, 0, 1, 1, 1])) is None


def test_components_of_several_tasks_give_the_error_of_their_mean() -> None:
    rng = np.random.default_rng(8)
    answers = _answers(rng.random((40, 4)).round(1), "a")
    answers += _answers(rng.random((10, 4)).round(1), "b")
    objective = ObjectiveMetric(METRICS["tokens"])
    parts = objective.components(answers)
    assert parts is not None
    assert parts.error(50, 4) == pytest.approx(objective.estimate(answers)[1], rel=0.15)


def test_resamples_draw_whole_clusters_and_keep_every_tasks() -> None:
    answers = _answers(np.ones((6, 3)), "a") + _answers(np.ones((4, 1)), "b")
    counts = resample_questions(answers)
    assert (counts[:, 0] == counts[:, 2]).all()
    assert (counts[:, :18].sum(axis=1) == 18).all()
    assert (counts[:, 18:].sum(axis=1) == 4).all()


def test_a_race_sees_clusters() -> None:
    """Ten copies of twelve questions: as clear as twelve, not as a hundred and twenty."""
    rng = np.random.default_rng(9)
    objectives = [ObjectiveMetric(METRICS["tokens"])]
    rival, gain = np.zeros((1, 1, 120)), np.repeat(rng.normal(0.5, 1.0, 12), 10)
    settings = RaceSettings(1.0, 1.0, (0.5,), 2.0)
    clusters = [f"c{i // 10}" for i in range(120)]
    asked = list(range(60))
    error = gain[:60].reshape(6, 10).mean(axis=1).std(ddof=1) / math.sqrt(6)
    assert 0 < gain[:60].mean() < 2 * error  # not clear, as six pairs go
    alone = Race(settings, objectives, ["t"] * 120, rival[0][None], rival)
    joined = Race(settings, objectives, ["t"] * 120, rival[0][None], rival, clusters)
    candidate = gain[None, asked]
    assert not alone.goes_on(asked, candidate)
    assert joined.goes_on(asked, candidate)
