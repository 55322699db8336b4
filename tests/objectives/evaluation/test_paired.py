"""Paired tests against hand calculations and simulation; criteria as they are written."""

import numpy as np
import pytest

from mergefront.objectives.evaluation import METRICS, Answer, ObjectiveMetric
from mergefront.objectives.evaluation.paired import (
    Criterion,
    compared,
    gains_of_best,
    mcnemar,
    paired_interval,
    visible_difference,
)


def test_mcnemar_counts_the_questions_on_which_models_differ() -> None:
    one, other = np.array([1, 1, 1, 1, 1, 0, 1, 0]), np.array([0, 0, 0, 0, 0, 0, 1, 0])
    assert mcnemar(one * 1.0, other * 1.0) == pytest.approx(2 / 2**5)
    assert mcnemar(one * 1.0, one * 1.0) == 1.0


def test_a_paired_interval_draws_clusters_whole() -> None:
    rng, missed = np.random.default_rng(1), [0, 0]
    clusters = np.repeat(np.arange(40), 5)
    for _ in range(200):
        gain = rng.normal(0, 1.0, size=(40, 1)) + rng.normal(0, 0.3, size=(40, 5))
        for place, joined in enumerate((clusters, None)):
            low, high = paired_interval(gain.ravel(), np.zeros(200), joined)
            missed[place] += not low <= 0 <= high
    assert missed[0] / 200 < 0.1
    assert missed[1] / 200 > 0.25


def test_the_visible_difference_is_found_with_its_power() -> None:
    n, disagreement, found = 400, 0.2, 0
    difference = visible_difference(n, disagreement)
    rng = np.random.default_rng(1)
    for _ in range(400):
        drawn = rng.random(n)
        wins = drawn < (disagreement + difference) / 2
        losses = (drawn >= (disagreement + difference) / 2) & (drawn < disagreement)
        found += mcnemar(wins.astype(np.float64), losses.astype(np.float64)) < 0.05
    assert 0.7 <= found / 400 <= 0.9


def test_two_models_are_compared_answer_by_answer() -> None:
    def answers(scores: list[float], repeat: int = 0) -> list[Answer]:
        return [
            Answer(f"t/{i}", "t", x, 3, "stop", "", repeat=repeat) for i, x in enumerate(scores)
        ]

    metric = ObjectiveMetric(METRICS["accuracy"])
    found = compared(answers([1, 1, 1, 0]), answers([0, 0, 1, 0]), metric)
    assert (found["metric"], found["difference"], found["p"]) == ("accuracy", 0.5, 0.5)
    partial = compared(answers([0.5, 1, 1, 0]), answers([0, 0, 1, 0]), metric)
    assert partial["p"] is None
    twice = compared(
        answers([1, 1]) + answers([1, 0], repeat=1), answers([0, 0]) + answers([0, 0], 1), metric
    )
    assert (twice["difference"], twice["p"]) == (0.75, None)


@pytest.mark.parametrize(
    ("text", "what", "bound", "level"),
    [
        ("gain over uniform > 0 with 95 %", "gain over uniform", 0.0, 0.95),
        ("survives >= 0.5", "survives", 0.5, 0.95),
        ("accuracy over expert > -0.01 with 90%", "accuracy over expert", -0.01, 0.9),
        ("tokens over uniform 0.43 <= 0", "tokens over uniform 0.43", 0.0, 0.95),
        ("accuracy over expert 1 > 0", "accuracy over expert 1", 0.0, 0.95),
    ],
)
def test_criteria_are_read(text: str, what: str, bound: float, level: float) -> None:
    criterion = Criterion.of(text)
    assert (criterion.what, criterion.bound, criterion.level) == (what, bound, level)


@pytest.mark.parametrize(
    "text",
    ["better than uniform", "gain over uniform > much", "survives > 0 with 20 %", "gain > 0"],
)
def test_what_is_no_criterion_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="criterion"):
        Criterion.of(text)


def test_criteria_are_proven_or_not() -> None:
    drawn = {"gain over uniform": np.linspace(-0.02, 0.98, 1000)}
    proven = Criterion.of("gain over uniform > 0 with 95 %").answer(drawn)
    assert (proven["proven"], proven["share"]) == (True, pytest.approx(0.98, abs=0.002))
    assert not Criterion.of("gain over uniform > 0 with 99 %").answer(drawn)["proven"]
    missing = Criterion.of("survives > 0").answer(drawn)
    assert (missing["proven"], missing["share"]) == (False, None)


def test_the_best_model_is_the_one_that_the_search_believed_in() -> None:
    criteria = [Criterion.of("tokens over expert > 0")]
    maximized = np.zeros((3, 3, 2))
    maximized[:, :, 1] = [[-5.0, -9.0, -20.0]] * 3
    believed = {0: [0.8, 6.0], 1: [0.9, 4.0]}
    gains = gains_of_best(
        criteria,
        ["accuracy", "tokens"],
        ["a", "b", "expert"],
        believed,
        maximized,
        np.array([1, -1.0]),
    )
    assert gains["tokens over expert"].tolist() == [11.0, 11.0, 11.0]
