"""Studies whose choices fix other parameters."""

from collections import Counter
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from mergefront.samplers import ArmSampler, SIPSampler, denoise
from mergefront.samplers._acqf import AcquisitionBudget
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


@pytest.mark.parametrize(
    "sampler",
    [
        _sip(),
        _sip(acquisition="qlognehvi"),
        ArmSampler(TPESampler(seed=0, n_startup_trials=4), ARMS),
        ArmSampler(TPESampler(seed=0, n_startup_trials=4, multivariate=True), ARMS),
        ArmSampler(NSGAIISampler(seed=0, population_size=4), ARMS),
        ArmSampler(RandomSampler(seed=0), ARMS),
    ],
)
def test_every_proposal_is_of_an_arm_with_what_it_fixes(sampler: BaseSampler) -> None:
    arms = Arms(ARMS)
    for trial in _study(sampler, 14).trials:
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
