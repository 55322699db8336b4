"""Who is stopped, and after which questions."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.evaluation import METRICS, Models, ObjectiveMetric, Sampling, TaskShare
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.racing import Race, RaceSettings, question_order
from mergefront.objectives.evaluation.tasks import TaskSource, load_task

OBJECTIVES = [ObjectiveMetric(METRICS["accuracy"]), ObjectiveMetric(METRICS["tokens"])]


def _numbers(rng: np.random.Generator, accuracy: float, tokens: float) -> NDArray[np.float64]:
    scores = (rng.random(200) < accuracy).astype(float)
    return np.stack([scores, rng.poisson(tokens, 200).astype(float)])


def _race(rivals: list[NDArray[np.float64]], margin: float = 1.0) -> Race:
    first = np.array(rivals[:1])
    settings = RaceSettings(1.0, 1.0, (0.25, 0.5), margin)
    return Race(settings, OBJECTIVES, ["t"] * 200, first, np.array(rivals))


def test_a_candidate_that_is_worse_in_everything_is_lost_and_one_that_trades_is_not() -> None:
    rng = np.random.default_rng(0)
    race = _race([_numbers(rng, 0.9, 10.0)])
    asked = race.blocks[0]
    assert len(asked) == 50
    worse, cheaper, better = (
        _numbers(rng, accuracy, tokens)
        for accuracy, tokens in ((0.5, 20.0), (0.5, 5.0), (0.99, 20.0))
    )
    assert not race.goes_on(asked, worse[:, asked])
    assert race.goes_on(asked, cheaper[:, asked])
    assert race.goes_on(asked, better[:, asked])


def test_the_margin_is_counted_in_errors_of_the_paired_difference() -> None:
    rng = np.random.default_rng(1)
    rival = _numbers(rng, 0.7, 20.0)
    # The same right answers but for four in fifty: clear in pairs, invisible in two samples.
    candidate = rival.copy()
    candidate[0, np.flatnonzero(rival[0])[::9]] = 0.0
    candidate[1] += 1.0
    first = list(range(150))
    assert not _race([rival], margin=2.0).goes_on(first, candidate[:, first])
    assert _race([rival], margin=10.0).goes_on(first, candidate[:, first])


def test_an_equal_candidate_is_never_lost() -> None:
    rival = _numbers(np.random.default_rng(2), 0.7, 20.0)
    assert _race([rival], margin=0.0).goes_on(list(range(200)), rival)


@pytest.mark.parametrize(("more", "goes_on"), [(0.0, False), (100.0, False), (-100.0, True)])
def test_of_equal_memory_the_better_answers_decide(more: float, goes_on: bool) -> None:
    objectives = [OBJECTIVES[0], ObjectiveMetric(METRICS["memory"])]
    right, size = np.ones(50), np.full(50, 1e9)
    rival = np.stack([right, size])[None]
    race = Race(RaceSettings(1.0, 1.0, (0.4,), 0.5), objectives, ["t"] * 50, rival, rival)
    asked = list(range(20))
    assert race.goes_on(asked, np.stack([right, size + more])[:, asked])  # as good, or cheaper
    wrong = np.stack([np.zeros(50), size + more])
    assert race.goes_on(asked, wrong[:, asked]) == goes_on


def test_nobody_is_stopped_while_there_are_no_rivals() -> None:
    numbers = _numbers(np.random.default_rng(5), 0.1, 50.0)
    race = Race(RaceSettings(), OBJECTIVES, ["t"] * 200, numbers[None], np.empty((0, 2, 200)))
    assert race.goes_on(race.blocks[0], numbers[:, race.blocks[0]])


def test_rivals_that_were_stopped_count_as_far_as_they_were_asked() -> None:
    rng = np.random.default_rng(3)
    rival = _numbers(rng, 0.9, 10.0)
    race = _race([rival, rival])
    stopped = rival.copy()
    stopped[:, race.blocks[1]] = np.nan
    only = Race(race.settings, OBJECTIVES, race.tasks, race.first, stopped[None])
    worse = _numbers(rng, 0.5, 20.0)
    first, second = race.blocks[0], race.blocks[0] + race.blocks[1]
    assert not only.goes_on(first, worse[:, first])
    assert only.goes_on(second, worse[:, second])


def test_every_block_is_a_small_picture_of_all_questions() -> None:
    rng = np.random.default_rng(4)
    difficulty = rng.random(200)
    first = np.array([[difficulty, 10 * difficulty]])
    tasks = ["a"] * 150 + ["b"] * 50
    order = question_order(tasks, first)
    assert sorted(order) == list(range(200))
    for n in (25, 50, 100):
        shares = np.mean([tasks[place] == "b" for place in order[:n]])
        assert shares == pytest.approx(0.25, abs=0.05)
        for name in ("a", "b"):
            rows = [place for place in order[:n] if tasks[place] == name]
            everything = [i for i in range(200) if tasks[i] == name]
            assert difficulty[rows].mean() == pytest.approx(
                difficulty[everything].mean(), abs=0.08
            )


def test_the_first_block_asks_every_task() -> None:
    tasks = ["big"] * 197 + ["small"] * 3
    first = np.random.default_rng(5).random((1, 3, 200))
    objectives = [*OBJECTIVES, ObjectiveMetric(METRICS["accuracy"], "small")]
    race = Race(RaceSettings(0.05, 0.05, (0.01,)), objectives, tasks, first, first)
    assert [len(block) for block in race.blocks] == [2, 8]
    assert {tasks[place] for place in race.blocks[0]} == {"big", "small"}
    equal = first[0][:, race.blocks[0]]
    assert race.goes_on(race.blocks[0], equal)


def test_weights_give_the_value() -> None:
    shares = {"a": TaskShare(3.0, (0.0, 0.5)), "b": TaskShare(1.0)}
    objective = ObjectiveMetric(METRICS["accuracy"], shares=shares)
    assert objective.weights(["a", "b", "a"]).tolist() == pytest.approx([0.75, 0.25, 0.75])
    assert ObjectiveMetric(METRICS["accuracy"], "b").weights(["a", "b", "a"]).tolist() == [0, 1, 0]


def test_a_lost_race_leaves_a_measurement_of_fewer_questions() -> None:
    backend = TransformersBackend(batch_size=64, device="cpu")
    backend.load(Models(BASE, (EXPERT,), "float32"))
    task = load_task(TaskSource("demo", {"search": QUESTIONS / "importance.jsonl"}))
    questions = questions_of([task], "search")
    objective = MergeObjective(backend, backend.plan, questions, OBJECTIVES, Sampling(48))
    whole = objective.measure(objective.plan.uniform(0.0))
    own = np.array(objective.numbers(whole.answers), dtype=np.float64)
    ideal = own + np.array([[1.0], [-1.0]])
    tasks = ["demo"] * len(questions)
    race = Race(RaceSettings(1.0, 1.0, (0.25,)), objective.metrics, tasks, own[None], ideal[None])
    part = objective.measure(objective.plan.uniform(0.0), race=race)
    assert part.pruned
    assert not whole.pruned
    assert len(part.answers) == 40
    assert {a.question_id for a in part.answers} == {
        questions[i].question.id for i in race.blocks[0]
    }
    assert part.standard_errors[0] > 1.5 * whole.standard_errors[0]
    assert part.values[0] == pytest.approx(whole.values[0], abs=2 * whole.standard_errors[0])
    numbers = objective.numbers(part.answers)
    assert [sum(x is not None for x in row) for row in numbers] == [40, 40]
    drawn = Race(RaceSettings(1.0, 1.0, (0.25,)), objective.metrics, tasks, own[None], own[None])
    assert objective.measure(objective.plan.uniform(0.0), race=drawn).answers == whole.answers
