"""Constraints: learned, avoided, and kept out of the front."""

from typing import Any

import optuna
import pytest
import torch
from optuna.study._constrained_optimization import _CONSTRAINTS_KEY
from optuna.trial import create_trial

from mergefront.samplers import BMMSampler, SIPSampler, Source, denoise, fit_study, keep
from mergefront.samplers._constraints import _log_ndtr, fit_feasibility
from mergefront.samplers._gp import Observations
from mergefront.samplers._trials.search_space import UnitCube
from mergefront.study import pareto_front

NAMES = ("a", "b", "c")


def _objective(trial: optuna.Trial) -> tuple[float, float]:
    """Better and dearer with `a`, of which half is forbidden; `b` and `c` have a best value."""
    a, b, c = (trial.suggest_float(name, 0, 1) for name in NAMES)
    trial.set_user_attr("standard_errors", [0.01, 0.01])
    trial.set_user_attr("constraint_errors", {"limit": 0.01})
    trial.set_constraint("limit", a - 0.5)
    off = (b - 0.3) ** 2 + (c - 0.6) ** 2
    return a - off, a**2 + off


def _study(acquisition: Any, n_trials: int = 22) -> optuna.Study:
    sampler = SIPSampler(seed=0, acquisition=acquisition)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(_objective, n_trials=n_trials)
    return study


@pytest.mark.parametrize("acquisition", ["knowledge-gradient", "qlognehvi"])
def test_proposals_keep_to_constraints(acquisition: str) -> None:
    study = _study(acquisition)
    proposed = study.trials[8:]
    kept = [trial for trial in proposed if trial.params["a"] <= 0.52]
    assert len(kept) >= 12  # of 14
    assert max(trial.params["a"] for trial in kept) > 0.35  # up to the limit, not far from it
    front = pareto_front(study)
    assert front
    assert all(trial.params["a"] <= 0.55 for trial in front)


def test_without_constraints_the_forbidden_half_is_the_better_one() -> None:
    sampler = SIPSampler(seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(lambda trial: _objective_without(trial), n_trials=14)
    assert max(trial.params["a"] for trial in pareto_front(study)) > 0.8


def _objective_without(trial: optuna.Trial) -> tuple[float, float]:
    a, b, c = (trial.suggest_float(name, 0, 1) for name in NAMES)
    off = (b - 0.3) ** 2 + (c - 0.6) ** 2
    return a - off, a**2 + off


def _trial(a: float, violation: float | None, value: float = 0.0) -> optuna.trial.FrozenTrial:
    constraints = None if violation is None else {"limit": violation}
    distribution = optuna.distributions.FloatDistribution(0, 1)
    return create_trial(
        values=[value + a],
        params={"a": a},
        distributions={"a": distribution},
        constraints=constraints,
    )


def _observations(trials: list[optuna.trial.FrozenTrial]) -> Observations:
    X = torch.tensor([[trial.params["a"]] for trial in trials], dtype=torch.double)
    return Observations(X, X)


def test_probability_falls_across_the_limit_and_trials_without_a_constraint_say_nothing() -> None:
    trials = [_trial(i / 10, i / 10 - 0.5) for i in range(11)] + [_trial(0.9, None)]
    feasibility = fit_feasibility(trials, _observations(trials))
    at = torch.tensor([[0.2], [0.5], [0.8]], dtype=torch.double)
    low, middle, high = feasibility.probability(at).tolist()
    assert low > 0.95
    assert 0.2 < middle < 0.8
    assert high < 0.05


def test_infinite_violations_are_large_ones() -> None:
    trials = [_trial(i / 10, float("inf") if i > 5 else -1.0) for i in range(11)]
    feasibility = fit_feasibility(trials, _observations(trials))
    probability = feasibility.probability(torch.tensor([[0.1], [0.9]], dtype=torch.double))
    assert torch.isfinite(probability).all()
    assert probability[0] > 0.9 > 0.3 > probability[1]


def test_a_violation_that_is_no_number_says_nothing_and_stops_nothing() -> None:
    known = [_trial(i / 10, i / 10 - 0.5) for i in range(11)]
    at = torch.tensor([[0.2], [0.8]], dtype=torch.double)
    usual = fit_feasibility(known, _observations(known)).probability(at)
    # Optuna refuses one, and whoever writes the storage directly does not.
    unknown = create_trial(
        values=[0.2],
        params={"a": 0.2},
        distributions=known[0].distributions,
        system_attrs={f"{_CONSTRAINTS_KEY}:limit": float("nan")},
    )
    more = [*known, unknown]
    assert torch.equal(fit_feasibility(more, _observations(more)).probability(at), usual)
    assert fit_feasibility([unknown], _observations([unknown])).margins == ()
    study = optuna.create_study(direction="maximize", sampler=SIPSampler(seed=0))
    study.add_trials(more)
    assert 0 <= study.ask({"a": more[0].distributions["a"]}).params["a"] <= 1


def test_no_constraints_cost_nothing_and_allow_everything() -> None:
    trials = [_trial(i / 10, None) for i in range(11)]
    feasibility = fit_feasibility(trials, _observations(trials))
    assert feasibility.margins == ()
    assert feasibility.likely(torch.rand(5, 1, dtype=torch.double)).all()


def test_where_nothing_is_feasible_the_front_is_empty_and_the_search_goes_on() -> None:
    study = optuna.create_study(direction="maximize", sampler=SIPSampler(seed=0))
    study.add_trials([_trial(i / 10, 2.0 - i / 10) for i in range(11)])
    assert pareto_front(study) == []
    assert not denoise(study).feasible.any()
    trial = study.ask({"a": optuna.distributions.FloatDistribution(0, 1)})
    assert trial.params["a"] > 0.5  # towards where the violation is smaller


def _screened(a: float) -> optuna.trial.FrozenTrial:
    return create_trial(
        state=optuna.trial.TrialState.PRUNED,
        params={"a": a},
        distributions={"a": optuna.distributions.FloatDistribution(0, 1)},
        constraints={"limit": a - 0.5},
    )


@pytest.mark.parametrize("sampler", [SIPSampler(seed=0), BMMSampler(seed=0)])
def test_screened_trials_tell_where_constraints_are_broken(sampler: Any) -> None:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.add_trials([_trial(a, a - 0.5) for a in (0.0, 0.1, 0.2, 0.3, 0.35, 0.4, 0.45)])
    study.add_trials([_screened(a) for a in (0.6, 0.7, 0.8, 0.9, 1.0)])
    trial = study.ask({"a": optuna.distributions.FloatDistribution(0, 1)})
    assert 0.4 < trial.params["a"] < 0.55  # better with a, up to the limit
    assert len(denoise(study).trials) == 7
    assert [trial.params["a"] for trial in pareto_front(study)] == [0.45]


def test_a_screened_trial_lowers_the_probability_where_it_was() -> None:
    trials = [_trial(i / 20, -0.1) for i in range(11)]
    space = {"a": optuna.distributions.FloatDistribution(0, 1)}
    cube, at = UnitCube(space), torch.tensor([[0.9]], dtype=torch.double)
    before = fit_feasibility(trials, _observations(trials)).probability(at)
    among = [*trials, _screened(0.9)]
    after = fit_feasibility(trials, _observations(trials), cube, among).probability(at)
    assert float(before) > 0.5 > float(after)


def test_a_constraint_is_not_explained_by_what_is_known_of_an_objective() -> None:
    """Of the same study, whichever objective comes first."""
    earlier = _study("knowledge-gradient", 10)
    earlier.set_metric_names(["gain", "cost"])
    found = []
    for names in (["gain", "cost"], ["cost", "gain"]):
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        directions = [up if name == "gain" else down for name in names]
        study = optuna.create_study(directions=directions)
        study.set_metric_names(names)
        keep(study, [Source.of(earlier)])
        for trial in earlier.trials:
            values = dict(zip(["gain", "cost"], trial.values, strict=True))
            again = create_trial(
                params=trial.params,
                distributions=trial.distributions,
                values=[values[name] for name in names],
                user_attrs=trial.user_attrs,
                constraints=trial.constraints,
            )
            study.add_trial(again)
        model = fit_study(study)
        assert model is not None and model.observations.hints
        found.append(model.feasibility.probability(model.observations.X))
    assert torch.equal(*found)


@pytest.mark.parametrize("make", [SIPSampler, BMMSampler])
@pytest.mark.parametrize("violation", [1e8, 1e9, 1e16])
def test_a_limit_in_bytes_that_all_break_alike_ends_no_search(make: Any, violation: float) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        a = trial.suggest_float("a", 0, 1)
        trial.set_constraint("memory", violation)
        return a, a**2

    sampler = make(n_startup_trials=3, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=5)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5


def test_the_tail_of_a_probability_has_its_gradient() -> None:
    z = torch.tensor([-3.0, -9.9e6, -1.1e7, -1e12, -1e100], dtype=torch.double, requires_grad=True)
    _log_ndtr(z).sum().backward()
    assert z.grad is not None
    # The ratio of density and distribution function is -z there.
    assert (z.grad[1:] / -z.detach()[1:]).tolist() == pytest.approx([1.0] * 4, rel=0.02)
    plain = z.detach()[:2].requires_grad_()
    torch.special.log_ndtr(plain).sum().backward()
    assert plain.grad is not None
    assert torch.equal(z.grad[:2], plain.grad)
    assert torch.equal(_log_ndtr(plain), torch.special.log_ndtr(plain))
