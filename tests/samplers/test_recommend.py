"""Recommended points: inside what was measured, better than what was evaluated."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, create_trial
from scipy.optimize import linprog

from mergefront import samplers
from mergefront.samplers import Recommendation
from mergefront.samplers._acqf.expected_utility import expected_smallest
from mergefront.study import recommend

NAMES = [f"layer_{i:03d}" for i in range(6)]
DIRECTIONS: list[Literal["maximize", "minimize"]] = ["maximize", "minimize", "maximize"]
SPACE: dict[str, BaseDistribution] = dict.fromkeys(NAMES, FloatDistribution(0.0, 1.0))


def _trial(params: dict[str, Any], values: list[float], error: float, **more: Any) -> FrozenTrial:
    space = more.pop("space", SPACE)
    told = {"standard_errors": [error] * len(values)}
    return create_trial(values=values, params=params, distributions=space, user_attrs=told, **more)


def _truth(x: np.ndarray[Any, Any]) -> list[float]:
    return [1 - ((x - 0.8) ** 2).mean(), 1 - ((x - 0.2) ** 2).mean()]


def _study(n: int = 30, error: float = 0.05, n_objectives: int = 2, seed: int = 0) -> optuna.Study:
    rng = np.random.default_rng(seed)
    study = optuna.create_study(directions=DIRECTIONS[:n_objectives])
    for _ in range(n):
        x = rng.random(6)
        first, second = _truth(x)
        values = np.array([first, -second, 1 - x[0]])[:n_objectives]
        values = values + error * rng.normal(size=n_objectives)
        study.add_trial(_trial(dict(zip(NAMES, x, strict=True)), values.tolist(), error))
    return study


def _in_hull(point: list[float], corners: np.ndarray[Any, Any]) -> bool:
    """Whether a point is a convex combination, but for a millionth."""
    n = len(corners)
    equalities = np.vstack([corners.T, np.ones(n)])
    told = np.array([*point, 1.0])
    # Smallest total deviation |A lambda - b|_1 over the simplex.
    cost = np.concatenate([np.zeros(n), np.ones(2 * len(told))])
    system = np.hstack([equalities, np.eye(len(told)), -np.eye(len(told))])
    return bool(linprog(cost, A_eq=system, b_eq=told).fun < 1e-6)


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
def test_recommendations_lie_in_the_hull_of_what_was_evaluated(n_objectives: int) -> None:
    study = _study(n_objectives=n_objectives)
    recommended = recommend(study)
    assert len(recommended) == {1: 1, 2: 19, 3: 38}[n_objectives]
    corners = np.array([list(trial.params.values()) for trial in study.trials])
    for one in recommended[::5]:
        assert list(one.params) == NAMES
        assert _in_hull(list(one.params.values()), corners)
        assert len(one.values) == len(one.deviations) == len(one.preference) == n_objectives
        assert sum(one.preference) == pytest.approx(1.0)
        assert all(deviation > 0 for deviation in one.deviations)


def test_recommendations_are_truly_better_than_what_looks_best() -> None:
    weights = [(w, 1 - w) for w in np.arange(0.1, 1.0, 0.1)]
    gains, off = [], []
    for seed in range(5):
        study = _study(60, seed=seed)
        for one in recommend(study, weights, reference_point=[0.6, -0.6]):
            looks_best = max(study.trials, key=lambda t: _utility(t.values, one.preference))
            gains.append(_true_utility(one.params, one) - _true_utility(looks_best.params, one))
            off += list((np.array(_true(one.params)) - one.values) / one.deviations)
    assert np.mean(gains) > 0.03
    assert np.mean(np.abs(off)) < 2.0  # predicted values are near the true ones


def _true(params: dict[str, Any]) -> list[float]:
    first, second = _truth(np.array(list(params.values())))
    return [first, -second]


def _utility(values: list[float], preference: list[float]) -> float:
    first, second = values[0] - 0.6, -values[1] - 0.6
    return min(first / preference[0], second / preference[1])


def _true_utility(params: dict[str, Any], one: Recommendation) -> float:
    return _utility(_true(params), one.preference)


def test_preferences_order_the_objectives() -> None:
    first = [one.values[0] for one in recommend(_study(60), reference_point=[0.6, -0.6])]
    assert first[-1] > first[0] + 0.1
    assert all(b > a - 0.05 for a, b in pairwise(first))


def test_a_number_is_the_weight_of_the_first_of_two_objectives() -> None:
    study = _study()
    by_number, by_weights = recommend(study, [0.25, [1, 3]])
    assert by_number.preference == by_weights.preference == [0.25, 0.75]
    assert by_number.params == by_weights.params


@pytest.mark.parametrize("preference", [0.0, 1.0, [1.0], [1, 2, 3], [-1, 2], [float("nan"), 1]])
def test_a_preference_that_does_not_fit_is_refused(preference: Any) -> None:
    with pytest.raises(ValueError, match="positive weights"):
        recommend(_study(4), [preference])


@pytest.mark.parametrize("reference", [[1.0], [float("nan"), 0.0], [0.0, -float("inf")]])
@pytest.mark.parametrize("function", [recommend, samplers.recommend])
def test_a_reference_point_that_does_not_fit_is_refused(
    function: Callable[..., Any], reference: list[float]
) -> None:
    with pytest.raises(ValueError, match="reference_point must have one value an objective, 2"):
        function(_study(4), reference_point=reference)


@pytest.mark.parametrize("span", [[1.0], [0, 1], [-1, 1], [float("nan"), 1], [1, float("inf")]])
def test_a_span_that_does_not_fit_is_refused(span: list[float]) -> None:
    with pytest.raises(ValueError, match=r"span must .* each a positive number up to 1e\+100"):
        samplers.recommend(_study(4), span=span)


def test_where_nothing_is_gained_the_evaluated_trial_is_named() -> None:
    study = optuna.create_study(direction="maximize")
    for a in np.linspace(0, 1, 9):  # a corner of the cube is the best there is
        params = dict.fromkeys(NAMES, float(a))
        study.add_trial(_trial(params, [float(a)], 0.01))
    (one,) = recommend(study)
    assert one.number == 8
    assert one.gain == 0.0
    assert one.params == study.trials[8].params


def test_without_trials_nothing_is_recommended() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    assert recommend(study) == []
    study.add_trial(_trial(dict.fromkeys(NAMES, 0.5), [1.0, 1.0], 0.1))
    assert {one.number for one in recommend(study)} == {0}


def test_choices_and_integers_keep_the_values_of_a_trial() -> None:
    space: dict[str, BaseDistribution] = {
        "op": CategoricalDistribution(("x", "y")),
        "n": IntDistribution(1, 5),
        "w": FloatDistribution(0.01, 1.0, log=True),
        "fixed": FloatDistribution(2.0, 2.0),
    }
    rng = np.random.default_rng(0)
    study = optuna.create_study(directions=["maximize", "minimize"])
    for _ in range(25):
        params: dict[str, Any] = {
            "op": "xy"[rng.integers(2)],
            "n": int(rng.integers(1, 6)),
            "w": float(0.01 ** rng.random()),
            "fixed": 2.0,
        }
        values = [params["w"] + (params["op"] == "x"), params["n"] * params["w"]]
        study.add_trial(_trial(params, values, 0.1, space=space))
    seen = {(t.params["op"], t.params["n"]) for t in study.trials}
    for one in recommend(study):
        assert (one.params["op"], one.params["n"]) in seen
        assert 0.01 <= one.params["w"] <= 1.0
        assert one.params["fixed"] == 2.0


def test_constraints_are_kept_and_where_none_can_be_nothing_is_recommended() -> None:
    def limited(bound: float) -> optuna.Study:
        rng = np.random.default_rng(0)
        study = optuna.create_study(directions=["maximize", "maximize"])
        for _ in range(30):
            a, b = rng.random(2)
            params = {**dict.fromkeys(NAMES, 0.5), "layer_000": a, "layer_001": b}
            kept = {"limit": float(a - bound)}
            study.add_trial(_trial(params, [a + b, a - b], 0.01, constraints=kept))
        return study

    assert recommend(limited(-1.0)) == []
    free, kept = recommend(limited(2.0)), recommend(limited(0.4))
    assert max(one.params["layer_000"] for one in free) > 0.8
    assert all(one.params["layer_000"] < 0.45 for one in kept)
    assert all(one.probability >= 0.5 for one in kept)


@pytest.mark.parametrize("m", [2, 3])
def test_the_expected_smallest_is_what_draws_say(m: int) -> None:
    means = torch.tensor([[0.3, 0.5, 0.4][:m]], dtype=torch.double)
    deviations = torch.tensor([[0.2, 0.1, 0.3][:m]], dtype=torch.double)
    z = torch.randn(400_000, m, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    drawn = (means + deviations * z).amin(dim=1).mean()
    assert expected_smallest(means, deviations).item() == pytest.approx(drawn.item(), abs=0.004)


def test_many_trials_are_advised_on_from_those_that_matter() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    rng = np.random.default_rng(0)
    rows = rng.random((700, 6))
    study.add_trials(
        [_trial(dict(zip(NAMES, x, strict=True)), [x.mean(), x[0]], 0.1) for x in rows]
    )
    (one,) = recommend(study, [0.5])
    assert _in_hull(list(one.params.values()), rows)
    assert one.params["layer_000"] < 0.3
