"""Predictions for other questions know that the study's own are a sample."""

import math
from typing import Any, Literal

import numpy as np
import optuna
import pytest
import torch
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, create_trial
from scipy.special import ndtri

from mergefront.objectives.evaluation.rotation import Rotation
from mergefront.samplers import CAUTION, Adviser, fit_study, preference_weights
from mergefront.samplers._trials.measurements import measurements
from mergefront.samplers._trials.questions import QuestionSampling, question_sampling

Array = NDArray[np.float64]
Asked = Literal["same", "rotating"]
NAMES = [f"layer_{i:03d}" for i in range(4)]
SPACE: dict[str, BaseDistribution] = dict.fromkeys(NAMES, FloatDistribution(0.0, 1.0))
N_ASKED, N_POOL = 80, 320
WEIGHTS = preference_weights([0.2, 0.35, 0.5, 0.65, 0.8], 2)


def _truth(x: Array) -> tuple[float, float]:
    return 0.25 + 0.5 * float(1 - ((x - 0.9) ** 2).mean()), 2 + 20 * float((x**1.5).mean())


class _Questions:
    """Greedy answers: a difficulty each, and a part that varies smoothly with the weights."""

    def __init__(self, rng: np.random.Generator, n: int) -> None:
        self._difficulty = rng.normal(size=(2, n))
        self._frequency = 2 * rng.normal(size=(2, n, 4))
        self._phase = rng.uniform(0, 2 * np.pi, size=(2, n))

    def ask(self, x: Array) -> Array:
        """Return whether each answer is right, and its length, `2 x n`-dim."""
        p, length = _truth(x)
        smooth = math.sqrt(2) * np.cos(self._frequency @ x + self._phase)
        hard, long = 0.8 * self._difficulty + 0.6 * smooth
        return np.stack([(ndtri(p) > hard).astype(float), length * np.exp(0.8 * long - 0.32)])


def _study(seed: int, asked: Asked, n: int = 30) -> optuna.Study:
    rng = np.random.default_rng(seed)
    size = N_POOL if asked == "rotating" else N_ASKED
    questions, rotation = _Questions(rng, size), Rotation([""] * size, seed=seed)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(n):
        x, told = rng.random(4), {}
        answers = questions.ask(x)
        if asked == "rotating":
            hand = rotation.hand(number).blocks[0]
            answers = answers[:, hand]
            told = {"answers": {"questions": hand, "values": answers.tolist()}}
        study.add_trial(_trial(answers, x, **told))
    return study


def _trial(columns: Array, x: Array | None = None, **told: Any) -> FrozenTrial:
    errors = columns.std(axis=1, ddof=1) / math.sqrt(columns.shape[1])
    x = np.zeros(4) if x is None else x
    return create_trial(
        values=columns.mean(axis=1).tolist(),
        params=dict(zip(NAMES, x.tolist(), strict=True)),
        distributions=SPACE,
        user_attrs={"standard_errors": errors.tolist(), **told},
    )


def _scores(seed: int, asked: Asked) -> tuple[Array, Array]:
    """Return how far predicted values are off, in deviations for other questions and for own."""
    study = _study(seed, asked)
    model = fit_study(study, same_questions=True)
    assert model is not None
    fresh, own = [], []
    for one in Adviser.of(model, study, [0.2, 25.0]).recommend(WEIGHTS):
        off = np.array(one.values) - _truth(np.array([one.params[name] for name in NAMES]))
        fresh.append(off / one.fresh_deviations)
        own.append(off / one.deviations)
    return np.array(fresh), np.array(own)


@pytest.mark.parametrize("asked", ["same", "rotating"])
def test_intervals_hold_true_values_as_often_as_they_say(asked: Asked) -> None:
    """At least 95 % of them do, ± 0.02; without what the questions share it is about half."""
    fresh, own = zip(*(_scores(seed, asked) for seed in range(16)), strict=True)
    assert np.mean(np.abs(fresh) < 1.96) >= 0.92
    assert np.mean(np.abs(own) < 1.96) <= 0.78
    assert np.mean(np.square(fresh)) >= 0.25  # nor are they twice too wide


def _sampling(trials: list[FrozenTrial], same: bool = False) -> QuestionSampling | None:
    return question_sampling(trials, measurements(trials), same)


def _one(sampling: QuestionSampling | None, values: list[float]) -> list[float]:
    assert sampling is not None
    found: list[float] = sampling.deviations(torch.tensor([values], dtype=torch.double))[
        0
    ].tolist()
    return found


def test_the_same_questions_leave_the_standard_error_of_models_of_that_value() -> None:
    rng = np.random.default_rng(0)
    short = [_trial(rng.normal([[0.5], [2.0]], [[0.5], [0.1]], (2, 64))) for _ in range(8)]
    long = [_trial(rng.normal([[0.5], [20.0]], [[0.5], [4.0]], (2, 64))) for _ in range(8)]
    sampling = _sampling(short + long, same=True)
    assert _one(sampling, [0.5, 20.0]) == pytest.approx([0.0625, 0.5], rel=0.1)
    assert _one(sampling, [0.5, 2.0])[1] < 0.1


def test_nothing_is_added_where_nothing_tells_which_questions_were_asked() -> None:
    study = _study(0, "same")
    model, told = fit_study(study), fit_study(study, same_questions=True)
    assert model is not None
    assert told is not None
    assert model.sampling is None
    plain, knowing = (Adviser.of(m, study).recommend(WEIGHTS) for m in (model, told))
    for one, other in zip(plain, knowing, strict=True):
        assert one.question_errors == [0.0, 0.0]
        assert one.fresh_deviations == [CAUTION * deviation for deviation in one.deviations]
        assert min(other.question_errors) > 0
        # What is better is the same for all questions.
        assert (one.params, one.utility, one.gain) == (other.params, other.utility, other.gain)
        assert one.deviations == other.deviations


def test_a_pool_leaves_as_much_less_as_it_is_larger() -> None:
    rotating, same = (
        _sampling(_study(1, "rotating").trials),
        _sampling(_study(1, "same").trials, True),
    )
    values = [0.6, 10.0]
    ratio = np.divide(_one(rotating, values), _one(same, values))
    assert ratio == pytest.approx([math.sqrt(N_ASKED / N_POOL)] * 2, rel=0.25)


def test_answers_tell_where_no_errors_do() -> None:
    trials = _study(2, "rotating").trials
    told = _one(_sampling(trials), [0.6, 10.0])
    for trial in trials:
        del trial.user_attrs["standard_errors"]
    assert _one(_sampling(trials), [0.6, 10.0]) == pytest.approx(told)
    same = [
        _trial(_Questions(np.random.default_rng(0), 64).ask(np.full(4, 0.5))) for _ in range(3)
    ]
    for trial in same:
        del trial.user_attrs["standard_errors"]
    assert _one(_sampling(same, True), [0.5, 10.0]) == [0.0, 0.0]


def test_tasks_are_sampled_each_by_its_own_questions() -> None:
    """Two tasks of which one rotates: its part of the variance shrinks, the other's stays."""
    rng = np.random.default_rng(3)
    effects = rng.normal(size=260)
    trials = []
    for _ in range(40):
        questions = [*rng.choice(240, 20, replace=False).tolist(), *range(240, 260)]
        numbers = effects[questions] + 0.3 * rng.normal(size=40)
        told = {"questions": questions, "values": [numbers.tolist()], "tasks": [0] * 20 + [1] * 20}
        value = float(numbers[:20].mean() + numbers[20:].mean())
        trials.append(create_trial(values=[value], user_attrs={"answers": told}))
    (found,) = _one(_sampling(trials), [0.0])
    assert found == pytest.approx(math.sqrt(1.09 / 240 + 1.09 / 20), rel=0.2)


def test_what_is_known_exactly_is_the_same_on_other_questions() -> None:
    rng = np.random.default_rng(0)
    values = torch.from_numpy(rng.random((12, 2)))
    variances = torch.tensor([[1e-4, 0.0]], dtype=torch.double).expand(12, 2)
    found = QuestionSampling(values, variances).deviations(values[:3])
    assert found[:, 1].tolist() == [0.0, 0.0, 0.0]
    assert bool((found[:, 0] > 0).all())
