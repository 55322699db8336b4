"""Questions dealt like cards, and the answers that travel with a trial."""

from collections import Counter

import numpy as np
import pytest

from mergefront.objectives.evaluation import METRICS, Answer, ObjectiveMetric, TaskShare
from mergefront.objectives.evaluation.rotation import Rotation, answers_attribute

TASKS = ["a"] * 40 + ["b"] * 12


def test_all_questions_are_asked_equally_often() -> None:
    rotation = Rotation(TASKS, seed=3)
    assert (rotation.n_asked, rotation.n_pool) == (14, 52)
    counts: Counter[int] = Counter()
    for number in range(50):
        (hand,) = rotation.hand(number).blocks
        assert len(set(hand)) == 14
        assert Counter(TASKS[place] for place in hand) == {"a": 10, "b": 4}
        counts.update(hand)
        for places in (range(40), range(40, 52)):
            asked = [counts[place] for place in places]
            assert max(asked) - min(asked) <= 2  # a card that a hand had already came later


def test_hands_follow_from_seed_and_number_alone() -> None:
    first, second = Rotation(TASKS, seed=3), Rotation(TASKS, seed=3)
    late = second.hand(9)
    assert [first.hand(number) for number in range(10)][9] == late
    assert Rotation(TASKS, seed=4).hand(9) != late


@pytest.mark.parametrize(("pool", "n_asked"), [(52, 14), (26, 9), (8, 8)])
def test_the_pool_is_as_large_as_asked_for(pool: int, n_asked: int) -> None:
    rotation = Rotation(TASKS, pool)
    assert (rotation.n_pool, rotation.n_asked) == (max(pool, 10) if pool == 8 else pool, n_asked)
    seen = {place for number in range(60) for place in rotation.hand(number).blocks[0]}
    assert len(seen) == rotation.n_pool


def _answer(task: str, score: float, n_tokens: int, k: int) -> Answer:
    return Answer(f"{task}/{k}", task, score, n_tokens, "stop", "")


def test_an_objective_is_the_sum_over_tasks_of_the_mean_of_its_contributions() -> None:
    rng = np.random.default_rng(0)
    answers = [_answer("ab"[k % 3 == 0], float(rng.integers(2)), k, k) for k in range(20)]
    shares = {"a": TaskShare(2.0, (0.2, 0.9)), "b": TaskShare(1.0, (0.0, 0.5))}
    metrics = [
        ObjectiveMetric(METRICS["accuracy"], None, shares),
        ObjectiveMetric(METRICS["tokens"], None, shares),
        ObjectiveMetric(METRICS["tokens"], "b"),
        ObjectiveMetric(METRICS["tokens_p90"]),
    ]
    told = answers_attribute(metrics, answers)
    assert told["questions"] == [answer.question_id for answer in answers]
    assert told["tasks"] == [answer.task for answer in answers]
    for metric, numbers in zip(metrics[:3], told["values"][:3], strict=True):
        means = [
            np.mean(known)
            for task in "ab"
            if (
                known := [
                    x
                    for x, answer in zip(numbers, answers, strict=True)
                    if x is not None and answer.task == task
                ]
            )
        ]
        assert sum(means) == pytest.approx(metric.estimate(answers)[0])
    assert told["values"][3] == [None] * 20
    assert "tasks" not in answers_attribute(metrics, [a for a in answers if a.task == "b"])
