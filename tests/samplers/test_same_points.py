"""Points that are one under several arms: what is refused, and what is not measured again."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from mergefront.samplers import SIPSampler, sip_sampler
from mergefront.samplers._acqf import AcquisitionBudget, rounded
from mergefront.samplers._acqf.optimize import repeats
from mergefront.samplers._trials.same_points import SamePoints
from mergefront.samplers._trials.search_space import UnitCube

SMALL = AcquisitionBudget(n_samples=8, n_raw=48, n_restarts=2, n_steps=4)
ARMS: list[dict[str, Any]] = [{"operator": "a"}, {"operator": "b"}]
SPACE: dict[str, BaseDistribution] = {
    "operator": CategoricalDistribution(["a", "b"]),
    "x": FloatDistribution(0, 1),
    "y": FloatDistribution(0, 1),
}
BASE = {"operator": "a", "x": 0.0, "y": 0.0}
SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [({"x": 0.0, "y": 0.0}, BASE)]


def _objective(trial: optuna.Trial) -> tuple[float, float]:
    trial.suggest_categorical("operator", ["a", "b"])
    x, y = (trial.suggest_float(name, 0, 1) for name in ("x", "y"))
    trial.set_user_attr("standard_errors", [0.02, 0.02])
    return -x - y, x * x + y * y


def _searched(n: int, **options: Any) -> optuna.Study:
    sampler = SIPSampler(seed=0, n_startup_trials=4, budget=SMALL, **options)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(_objective, n_trials=n)
    return study


@pytest.mark.parametrize(
    ("same", "told"),
    [
        ([({"x": 0.0, "z": 0.0}, BASE)], r"A pair of `same` fixes 'z', which is no parameter of"),
        ([({"z": 0.0}, BASE)], r"fixes 'z', which is no parameter .*; correct `same`\.$"),
        ([({"x": 0.0}, {"operator": "a", "z": 0.0})], "fixes 'z', which is no parameter"),
        ([({"x": "0"}, BASE)], r"`same` fixes x to '0', which is not of .*; correct `same`\.$"),
        ([({"x": float("nan")}, BASE)], "`same` fixes x to nan, which is not of"),
    ],
)
@pytest.mark.parametrize("given", [True, False])
def test_a_mistake_in_same_is_told_once_the_space_is_known(
    given: bool, same: Any, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        _searched(5, arms=ARMS, same=same, search_space=SPACE if given else None)


@pytest.mark.parametrize(
    ("same", "told"),
    [
        (
            [({"x": 0.0}, {"operator": "c"})],
            "must hold what an arm allows, but no arm allows oper",
        ),
        ([({}, BASE)], "must hold pairs: .*, but got "),
        ([({"x": 0.0}, {})], "must hold pairs: .*, but got "),
        ([{"x": 0.0}], "must hold pairs: .*, but got "),
        ([({"x": 0.0}, BASE, BASE)], "must hold pairs: .*, but got "),
    ],
)
def test_a_pair_that_no_space_could_hold_is_refused_at_once(same: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SIPSampler(arms=ARMS, same=same)


def test_a_parent_may_be_outside_the_bounds() -> None:
    narrow = {**SPACE, "x": FloatDistribution(0.2, 0.8), "y": FloatDistribution(0.2, 0.8)}
    SIPSampler(arms=ARMS, same=SAME, search_space=narrow)


def test_points_of_several_arms_need_arms() -> None:
    with pytest.raises(ValueError, match=r"got 1 pair\(s\) and no arms; give `arms`"):
        SIPSampler(same=SAME)


def test_a_pair_says_nothing_where_a_part_of_it_is_not_searched() -> None:
    same, cube = SamePoints([({"x": 0.0, "z": 1.0}, BASE)]), UnitCube(SPACE)
    points = cube.encode([{"operator": "b", "x": 0.0, "y": 0.5}])
    assert same.joined(cube, points).tolist() == points.tolist()
    whole = UnitCube({**SPACE, "z": FloatDistribution(0, 1)})
    rows = [{"operator": "b", "x": 0.0, "y": 0.5, "z": z} for z in (1.0, 0.5)]
    joined = same.joined(whole, whole.encode(rows))
    assert joined.tolist() == whole.encode([{**BASE, "z": 1.0}, rows[1]]).tolist()


def test_what_is_rounded_to_a_known_model_repeats_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ascent ends nearly at the base under b, which was measured under a, and far away."""
    cube = UnitCube(SPACE)
    near = {"operator": "b", "x": 3e-5, "y": 2e-5}
    ends = cube.encode([near, {"operator": "b", "x": 1.0, "y": 0.9}])
    end: Callable[..., Any] = lambda *_: (ends, torch.zeros(2, dtype=torch.double))  # noqa: E731
    monkeypatch.setattr(sip_sampler, "climb_arms", end)
    options: dict[str, Any] = {"arms": ARMS, "search_space": SPACE, "same": SAME}
    study = _searched(4, repeats=False, **options)
    study.enqueue_trial(BASE)
    study.optimize(_objective, n_trials=2)
    assert study.trials[-1].params == {"operator": "b", "x": 1.0, "y": 0.9}
    # Where repeats tell something, the same end is the base that was measured.
    study.sampler = SIPSampler(seed=0, n_startup_trials=4, budget=SMALL, **options)
    ends[1] = ends[0]
    study.optimize(_objective, n_trials=1)
    assert study.trials[-1].params == BASE


def test_points_repeat_where_they_are_proposed_as_the_same() -> None:
    points = torch.tensor([[0.00006], [0.00004], [0.12345678]], dtype=torch.double)
    assert rounded(points).flatten().tolist() == [0.0001, 0.0, 0.1235]
    known = torch.tensor([[0.0], [0.1235]], dtype=torch.double)
    assert repeats(rounded(points), known).tolist() == [False, True, True]
