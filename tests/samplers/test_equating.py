"""Values of different questions, made comparable."""

import time
from typing import Any

import numpy as np
import optuna
import pytest
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from mergefront.objectives.evaluation.rotation import Rotation
from mergefront.samplers import AcquisitionBudget, SIPSampler, denoise
from mergefront.samplers._trials.equating import equate
from mergefront.samplers._trials.two_way import two_way

Array = NDArray[np.float64]
SPACE: dict[str, BaseDistribution] = {"w": FloatDistribution(0, 1), "v": FloatDistribution(0, 1)}


def _answers(n: int, n_pool: int, seed: int = 0) -> tuple[Array, Array, list[list[int]]]:
    """Return true values, all answers (trials x questions) and each trial's questions."""
    rng = np.random.default_rng(seed)
    truth = 0.3 * rng.normal(size=n)
    effects = rng.normal(size=n_pool)
    answers = truth[:, None] + effects + 0.7 * rng.normal(size=(n, n_pool))
    rotation = Rotation([""] * n_pool, seed=seed)
    return truth, answers, [rotation.hand(i).blocks[0] for i in range(n)]


def _trial(questions: list[Any], columns: list[list[float]], **more: Any) -> FrozenTrial:
    told = {"questions": questions, "values": columns, **more}
    return create_trial(
        values=[float(np.nanmean(np.array(column, dtype=float))) for column in columns],
        user_attrs={"answers": told},
    )


def _trials(answers: Array, hands: list[list[int]]) -> list[FrozenTrial]:
    return [
        _trial(
            [f"q{k}" for k in hand], [answers[i, hand].tolist(), (-2 * answers[i, hand]).tolist()]
        )
        for i, hand in enumerate(hands)
    ]


def _values(trials: list[FrozenTrial]) -> Array:
    return np.array([trial.values for trial in trials])


def _off(values: Array, truth: Array) -> float:
    """Return the root mean squared error of contrasts."""
    return float(np.std(values - truth))


def test_equating_takes_off_what_the_questions_are() -> None:
    raw, off, told = [], [], []
    for seed in range(8):
        truth, answers, hands = _answers(40, 200, seed)
        trials = _trials(answers, hands)
        equated = equate(trials, _values(trials))
        assert equated is not None
        raw.append(_off(_values(trials)[:, 0], truth))
        off.append(_off(equated.values[:, 0], truth))
        told.append(equated.errors[:, 0].mean())
    assert np.mean(off) < 0.75 * np.mean(raw)
    assert np.mean(told) == pytest.approx(np.mean(off), rel=0.1)
    assert equated is not None
    assert equated.values[:, 1] == pytest.approx(-2 * equated.values[:, 0])
    assert equated.errors[:, 1] == pytest.approx(2 * equated.errors[:, 0])


def test_it_is_generalized_least_squares() -> None:
    _, answers, hands = _answers(20, 60)
    trials, questions = np.repeat(np.arange(20), 15), np.concatenate(hands)
    numbers = answers[trials, questions]
    effects = two_way(trials, questions, numbers, 20)
    # The textbook's: values as fixed effects, answers with their whole covariance.
    V = effects.rest * np.eye(300) + effects.of_questions * (questions[:, None] == questions)
    design = (trials[:, None] == np.arange(20)).astype(float)
    weighted = np.linalg.solve(V, design)
    expected = np.linalg.solve(design.T @ weighted, weighted.T @ numbers)
    means = np.bincount(trials, numbers) / 15
    assert means - effects.shifts == pytest.approx(expected, abs=1e-3)
    assert effects.of_questions == pytest.approx(1.0, rel=0.5)
    assert effects.rest == pytest.approx(0.49, rel=0.2)


def test_the_same_questions_need_no_equating() -> None:
    _, answers, _ = _answers(10, 30)
    trials = _trials(answers, [list(range(30))] * 10)
    assert equate(trials, _values(trials)) is None
    assert equate([create_trial(values=[1.0])], np.ones((1, 1))) is None


def test_trials_without_answers_keep_their_values() -> None:
    _, answers, hands = _answers(20, 80)
    plain = create_trial(values=[5.0, 6.0], user_attrs={"standard_errors": [0.1, 0.2]})
    trials = [*_trials(answers, hands), plain]
    equated = equate(trials, _values(trials))
    assert equated is not None
    assert equated.values[20].tolist() == [5.0, 6.0]
    assert np.isnan(equated.errors[20]).all()


@pytest.mark.parametrize(
    "malformed",
    [None, 3, [], {}, {"questions": ["a"]}, {"questions": "ab", "values": [[1, 2], [1, 2]]},
     {"questions": ["a", "b"], "values": [[1, 2]]}, {"questions": ["a"], "values": [["x"], [1]]},
     {"questions": [["a"]], "values": [[1], [1]]}, {"questions": [], "values": [[], []]},
     {"questions": ["a"], "values": [[1], [1]], "tasks": 3}],
)  # fmt: skip
def test_malformed_answers_are_none(malformed: Any) -> None:
    _, answers, hands = _answers(12, 40)
    bad = create_trial(values=[5.0, 6.0], user_attrs={"answers": malformed})
    trials = [*_trials(answers, hands), bad]
    equated = equate(trials, _values(trials))
    assert equated is not None
    assert equated.values[12].tolist() == [5.0, 6.0]


def test_repeats_of_a_question_are_no_further_questions() -> None:
    _, answers, hands = _answers(20, 80)
    once = _trials(answers, hands)
    thrice = [
        _trial([*a["questions"]] * 3, [column * 3 for column in a["values"]])
        for a in (t.user_attrs["answers"] for t in once)
    ]
    first, second = equate(once, _values(once)), equate(thrice, _values(thrice))
    assert first is not None
    assert second is not None
    assert first.values == pytest.approx(second.values)
    assert first.errors == pytest.approx(second.errors)


def test_each_task_has_effects_of_its_own() -> None:
    truth, answers, hands = _answers(30, 120)
    trials = []
    for i, hand in enumerate(hands):
        easy = [0.1 * answers[i, k] for k in hand]
        tasks = ["hard"] * len(hand) + ["easy"] * len(hand)
        numbers = [*answers[i, hand].tolist(), *easy]
        told = {
            "questions": [f"h{k}" for k in hand] + [f"e{k}" for k in hand],
            "values": [numbers],
            "tasks": tasks,
        }
        value = float(np.mean(answers[i, hand]) + np.mean(easy))
        trials.append(create_trial(values=[value], user_attrs={"answers": told}))
    equated = equate(trials, _values(trials))
    assert equated is not None
    assert _off(equated.values[:, 0], 1.1 * truth) < 0.8 * _off(_values(trials)[:, 0], 1.1 * truth)


def test_a_value_in_another_unit_is_equated_and_one_that_is_no_mean_is_not() -> None:
    _, answers, hands = _answers(30, 120)
    plain = _trials(answers, hands)
    values = _values(plain)
    values[:, 0] = 100 * values[:, 0] + 7
    values[:, 1] = np.random.default_rng(0).normal(size=30)
    base, scaled = equate(plain, _values(plain)), equate(plain, values)
    assert base is not None
    assert scaled is not None
    assert scaled.values[:, 0] == pytest.approx(100 * base.values[:, 0] + 7)
    assert scaled.values[:, 1].tolist() == values[:, 1].tolist()
    assert np.isnan(scaled.errors[:, 1]).all()


def test_any_study_with_answers_is_denoised_and_searched_by_equated_values() -> None:
    rng = np.random.default_rng(1)
    effects = 8.0 * rng.normal(size=160)
    rotation = Rotation([""] * 160)
    sampler = SIPSampler(seed=0, budget=AcquisitionBudget(8, 24, 2, 8))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    off: dict[bool, list[float]] = {True: [], False: []}
    for told in (True, False):
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for i in range(24):
            w, v = rng.random(2)
            hand = rotation.hand(i).blocks[0]
            numbers = w + effects[hand] + 0.3 * rng.normal(size=len(hand))
            answers = {"questions": [str(k) for k in hand], "values": [numbers.tolist()]}
            attributes: dict[str, Any] = {"answers": answers} if told else {}
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE,
                    values=[float(numbers.mean())],
                    params={"w": w, "v": v},
                    distributions=SPACE,
                    user_attrs=attributes,
                )
            )
        study.ask(SPACE)  # pending
        assert 0 <= study.ask(SPACE).params["w"] <= 1
        means = denoise(study).means[:, 0].numpy()
        truth = np.array([trial.params["w"] for trial in study.trials[:24]])
        off[told].append(_off(means, truth))
    assert off[True][0] < 0.5 * off[False][0]


def test_two_thousand_trials_of_two_hundred_questions_take_seconds() -> None:
    rng = np.random.default_rng(0)
    questions = rng.integers(2000, size=400_000)
    trials = np.repeat(np.arange(2000), 200)
    numbers = rng.normal(size=2000)[questions] + rng.normal(size=400_000)
    start = time.process_time()
    two_way(trials, questions, numbers, 2000)
    assert time.process_time() - start < 3.0
