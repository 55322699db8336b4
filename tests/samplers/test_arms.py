"""Studies whose choices fix other parameters."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from mergefront.samplers import ArmSampler, SIPSampler, denoise
from mergefront.samplers._acqf import AcquisitionBudget
from mergefront.samplers._acqf import arms as arms_module
from mergefront.samplers._acqf.arms import Choices, climb_arms
from mergefront.samplers._trials.arms import Arms
from mergefront.samplers._trials.search_space import UnitCube

SMALL = AcquisitionBudget(n_samples=8, n_raw=48, n_restarts=2, n_steps=4)
ARMS: list[dict[str, Any]] = [
    {"operator": "a", "experts": "1", "x@2": 0.0},
    {"operator": "a", "experts": "1+2"},
    {"operator": "b", "experts": "2", "x@1": 0.0},
]
SPACE: dict[str, BaseDistribution] = {
    "operator": CategoricalDistribution(["a", "b"]),
    "experts": CategoricalDistribution(["1", "1+2", "2"]),
    "x@1": FloatDistribution(0, 1),
    "x@2": FloatDistribution(0, 1),
}
BONUS = {"a": 0.0, "b": 0.6}


def _objective(trial: optuna.Trial) -> tuple[float, float]:
    """Return a gain and a cost; operator b gains more at the same cost."""
    operator = trial.suggest_categorical("operator", ["a", "b"])
    trial.suggest_categorical("experts", ["1", "1+2", "2"])
    x = np.array([trial.suggest_float(name, 0, 1) for name in ("x@1", "x@2")])
    trial.set_user_attr("standard_errors", [0.02, 0.02])
    return float(x.sum() + BONUS[operator] * x[1]), float((x**2).sum())


def _study(sampler: BaseSampler, n: int) -> optuna.Study:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(_objective, n_trials=n)
    return study


def _sip(**options: Any) -> SIPSampler:
    return SIPSampler(
        seed=0, n_startup_trials=6, search_space=SPACE, arms=ARMS, budget=SMALL, **options
    )


SAMPLERS: dict[str, Callable[[], BaseSampler]] = {
    "sip": _sip,
    "sip-qlognehvi": lambda: _sip(acquisition="qlognehvi"),
    "sip-without-space": lambda: SIPSampler(seed=0, n_startup_trials=6, arms=ARMS, budget=SMALL),
    "tpe": lambda: ArmSampler(TPESampler(seed=0, n_startup_trials=4), ARMS),
    "tpe-multivariate": lambda: ArmSampler(
        TPESampler(seed=0, n_startup_trials=4, multivariate=True), ARMS
    ),
    "nsga2": lambda: ArmSampler(NSGAIISampler(seed=0, population_size=4), ARMS),
    "gp": lambda: ArmSampler(GPSampler(seed=0, n_startup_trials=6), ARMS),
    "random": lambda: ArmSampler(RandomSampler(seed=0), ARMS),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_proposal_is_of_an_arm_with_what_it_fixes(sampler: str) -> None:
    arms = Arms(ARMS)
    for trial in _study(SAMPLERS[sampler](), 14).trials:
        place = arms.place_of(trial.params)
        assert place is not None
        assert {**trial.params, **ARMS[place]} == trial.params


def test_a_hopeless_arm_is_dropped_and_those_of_the_front_share_the_rest() -> None:
    """Expert 1 alone is worse than 2 under b everywhere; both experts alone gain more than 1.6."""
    study = _study(_sip(), 24)
    first = Counter(t.params["experts"] for t in study.trials[:6])
    later = Counter(t.params["experts"] for t in study.trials[6:])
    assert set(first) == {"1", "1+2", "2"}
    assert later["1"] <= 2
    assert min(later["2"], later["1+2"]) >= 4


def test_suggestions_depend_on_history_alone() -> None:
    once, again = _study(_sip(), 10), _study(_sip(), 10)
    assert [t.params for t in once.trials] == [t.params for t in again.trials]


def test_points_in_flight_are_not_proposed_again() -> None:
    study = _study(_sip(), 10)
    asked = [study.ask(SPACE) for _ in range(3)]
    points = UnitCube(SPACE).encode([trial.params for trial in asked])
    distances = [float((points[i] - points[j]).abs().max()) for i in range(3) for j in range(i)]
    assert min(distances) > 0.01


def test_wishes_are_completed_within_an_arm() -> None:
    study = _study(_sip(), 8)
    study.enqueue_trial({"operator": "b", "x@2": 0.5})
    study.optimize(_objective, n_trials=1)
    params = study.trials[-1].params
    assert params == {"operator": "b", "experts": "2", "x@1": 0.0, "x@2": 0.5}


@pytest.mark.parametrize("start", [0, 8])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_queued_trial_gets_an_arm_that_allows_all_that_was_fixed(
    sampler: str, start: int
) -> None:
    study, arms = _study(SAMPLERS[sampler](), start), Arms(ARMS)
    asked: list[dict[str, Any]] = [
        {"operator": "b"},
        {"x@1": 0.7},
        {"x@2": 0.25},
        {"experts": "1", "x@1": 0.3},
        {"operator": "a", "experts": "1+2", "x@1": 0.1, "x@2": 0.2},
    ]
    for wish in asked:
        study.enqueue_trial(wish)
    study.optimize(_objective, n_trials=len(asked))
    for wish, trial in zip(asked, study.trials[start:], strict=True):
        place = arms.place_of(trial.params)
        assert place is not None
        assert {**trial.params, **ARMS[place], **wish} == trial.params


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("wish", [{"experts": "1", "x@2": 0.7}, {"operator": "b", "x@1": 0.7}])
def test_a_queued_trial_that_no_arm_allows_is_refused_before_it_is_measured(
    sampler: str, wish: dict[str, Any]
) -> None:
    study = _study(SAMPLERS[sampler](), 7)
    study.enqueue_trial(wish)
    with pytest.raises(ValueError, match=r"^No arm allows .*=0\.7; the nearest is .* fixes x@"):
        study.optimize(_objective, n_trials=1)
    assert study.trials[-1].values is None


def test_why_no_arm_allows_something_is_one_sentence() -> None:
    told = Arms(ARMS).refusal({"operator": "b", "experts": "1+2"})
    assert told is not None
    assert told.startswith("no arm allows operator='b', experts='1+2'; the nearest is operator=")
    assert Arms(ARMS).refusal({"x@1": 0.7, "other": 3}) is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            {"experts": "3"},
            r"Arm \(operator='a', experts='3'\) fixes experts to '3', which is not",
        ),
        (
            {"x@2": -0.5},
            r"Arm \(operator='a', experts='1'\) fixes x@2 to -0.5, which is not within",
        ),
        ({"x@2": "0"}, "fixes x@2 to '0', which is not within"),
        ({"x@3": 0.0}, "fixes 'x@3', which is no parameter of the study .*; correct `arms`"),
    ],
)
@pytest.mark.parametrize("sampler", ["given-space", "sip", "tpe", "multivariate", "random"])
def test_a_mistake_in_an_arm_is_told_once_the_space_is_known(
    sampler: str, wrong: dict[str, Any], told: str
) -> None:
    arms = [{**ARMS[0], **wrong}, *ARMS[1:]]
    makers: dict[str, Callable[[], BaseSampler]] = {
        "given-space": lambda: SIPSampler(seed=0, search_space=SPACE, arms=arms),
        "sip": lambda: SIPSampler(seed=0, arms=arms),
        "tpe": lambda: ArmSampler(TPESampler(seed=0), arms),
        "multivariate": lambda: ArmSampler(TPESampler(seed=0, multivariate=True), arms),
        "random": lambda: ArmSampler(RandomSampler(seed=0), arms),
    }
    study = None
    with pytest.raises(ValueError, match=told):
        study = _study(makers[sampler](), 0)
        study.enqueue_trial({"operator": "a"} | ({} if "experts" in wrong else {"experts": "1"}))
        study.optimize(_objective, n_trials=3)
    assert (study is None) == (sampler == "given-space")
    if study is not None:  # a name is unknown once a trial of its arm lacks it
        places = [Arms(ARMS).place_of(t.params) for t in study.trials if t.values is not None]
        assert places.count(0) == ("x@3" in wrong)


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"x@1": 0.0, "x@2": 0.0}, {"operator": "a", "experts": "1", "x@1": 0.0, "x@2": 0.0}),
    ({**ARMS[1], "x@1": 1.0, "x@2": 0.0}, {**ARMS[0], "x@1": 1.0}),
]


def _best_at_the_base(trial: optuna.Trial) -> tuple[float, float]:
    _objective(trial)
    x = np.array([trial.params["x@1"], trial.params["x@2"]])
    return -float(x.sum()), float((x**2).sum())


@pytest.mark.parametrize("acquisition", ["knowledge-gradient", "qlognehvi"])
def test_what_is_one_model_under_several_arms_is_measured_once(acquisition: Any) -> None:
    sampler = _sip(acquisition=acquisition, same=SAME, repeats=False)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.enqueue_trial(SAME[0][1])
    study.optimize(_best_at_the_base, n_trials=18)
    points = [tuple(t.params[name] for name in SPACE) for t in study.trials]
    assert len(set(points[6:]) - set(points[:6])) == 12
    assert not any(point[2:] == (0.0, 0.0) for point in points[6:])
    # Without that knowledge the search comes back to the base under one arm or another.
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=_sip())
    study.enqueue_trial(SAME[0][1])
    study.optimize(_best_at_the_base, n_trials=18)
    assert sum(t.params["x@1"] == t.params["x@2"] == 0.0 for t in study.trials[6:]) > 2


def test_where_repeats_tell_something_the_one_arm_is_proposed() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=_sip(same=SAME))
    study.enqueue_trial(SAME[0][1])
    study.optimize(_best_at_the_base, n_trials=18)
    zero = [t.params for t in study.trials[6:] if t.params["x@1"] == t.params["x@2"] == 0.0]
    assert zero
    assert all(params == SAME[0][1] for params in zero)


def test_a_parent_in_flight_is_not_proposed_under_another_arm() -> None:
    sampler = _sip(same=SAME, repeats=False)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.enqueue_trial(SAME[0][1])
    base = study.ask(SPACE)
    study.optimize(_best_at_the_base, n_trials=7)
    asked = [study.ask(SPACE) for _ in range(4)]
    assert base.params == SAME[0][1]
    points = [tuple(t.params.values()) for t in (base, *asked)]
    assert len(set(points)) == 5
    assert not any(t.params["x@1"] == t.params["x@2"] == 0.0 for t in asked)


def test_a_wish_for_a_parent_under_another_arm_is_kept() -> None:
    study = _study(_sip(same=SAME, repeats=False), 7)
    wish = {**ARMS[2], "x@2": 0.0}
    for _ in range(2):
        study.enqueue_trial(wish)
    study.optimize(_objective, n_trials=2)
    assert [t.params for t in study.trials[-2:]] == [wish, wish]


def test_points_that_are_one_model_have_no_distance() -> None:
    arms, cube = Arms(ARMS, SAME), UnitCube(SPACE)
    rows = [{**arm, "x@1": 0.0, "x@2": 0.0} for arm in ARMS]
    rows += [{**ARMS[0], "x@1": 1.0}, {**ARMS[1], "x@1": 1.0, "x@2": 0.0}]
    rows += [{**ARMS[1], "x@1": 0.0, "x@2": 1e-4}, {**ARMS[2], "x@2": 1.0}]
    points = cube.encode(rows)
    joined = arms.joined(cube, points)
    assert joined[:3].tolist() == [points[0].tolist()] * 3
    assert joined[3:5].tolist() == [points[3].tolist()] * 2
    assert joined[5:].tolist() == points[5:].tolist()


def test_what_is_learned_of_one_arm_informs_the_others() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    levels = np.linspace(0, 1, 9)
    for level in levels:  # operator a everywhere, b in one place
        study.enqueue_trial({"operator": "a", "experts": "1", "x@1": level, "x@2": 0.0})
    study.enqueue_trial({"operator": "b", "experts": "2", "x@1": 0.0, "x@2": 0.5})
    study.optimize(_objective, n_trials=10)
    believed = denoise(study)
    assert believed.deviations[:9].max() < 0.1
    assert believed.means[9, 0] == pytest.approx(0.8, abs=0.05)


def test_arms_must_differ_in_their_choices() -> None:
    with pytest.raises(ValueError, match="two at least"):
        SIPSampler(arms=ARMS[:1])
    with pytest.raises(ValueError, match=r"no parameter is fixed by every arm: x; y\."):
        SIPSampler(arms=[{"x": 0.0}, {"y": 0.0}])
    with pytest.raises(ValueError, match="two have"):
        SIPSampler(arms=[{"k": "a", "x": 0.0}, {"k": "a", "y": 0.0}])


def test_an_unknown_pair_of_choices_becomes_one_that_shares_most() -> None:
    arms = Arms(ARMS)
    asked = {"operator": "a", "experts": "2"}  # each arm has one of them: the number decides
    found = [arms.settled(asked, n) for n in range(3)]
    assert found == [{**asked, **arm} for arm in ARMS]
    assert [arms.settled(asked, n, {"experts": "2"}) for n in range(3)] == [found[2]] * 3


def test_what_an_arm_fixes_in_the_cube() -> None:
    nan = float("nan")
    rows = Arms(ARMS).columns(UnitCube(SPACE)).tolist()
    expected = [[1, 0, 1, 0, 0, nan, 0], [1, 0, 0, 1, 0, nan, nan], [0, 1, 0, 0, 1, 0, nan]]
    assert rows == [pytest.approx(row, nan_ok=True) for row in expected]


@pytest.mark.parametrize("offset", [-10.0, 7.0])
def test_which_arms_are_climbed_does_not_depend_on_units(
    monkeypatch: pytest.MonkeyPatch, offset: float
) -> None:
    """Of three arms the second is more than half as good as the first, the third hopeless."""
    climbed = []

    def climb(acquisition: Any, raw: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
        climbed.append(raw)
        return raw[:1], torch.zeros(1)

    def scores(X: torch.Tensor) -> torch.Tensor:
        return X[:, 0, 0].log() + offset

    monkeypatch.setattr(arms_module, "climb", climb)
    fixed = torch.tensor([[1.0, torch.nan], [0.6, torch.nan], [0.1, torch.nan]])
    choices = Choices(fixed.double(), lambda points: points, is_log=True)
    X = torch.rand(4, 2, dtype=torch.double)
    rng = np.random.default_rng(0)
    acquisition: Any = scores
    climb_arms(acquisition, choices, X, lambda points: points, SMALL, rng)
    assert len(climbed) == 2
