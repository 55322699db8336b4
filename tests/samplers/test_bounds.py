"""Parents that were measured outside the bounds of the search."""

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from mergefront.samplers import BMMSampler, BMMSettings, SIPSampler, fit_study, recommend, signs
from mergefront.samplers._acqf import AcquisitionBudget

SMALL = AcquisitionBudget(n_samples=8, n_raw=48, n_restarts=2, n_steps=4)
NAMES = [f"layer_{i:03d}" for i in range(3)]
OPERATOR = CategoricalDistribution(["a", "b"])
ARMS = [{"operator": "a"}, {"operator": "b"}]
Bounds = tuple[float, float]


def _space(low: float, high: float, arms: bool) -> dict[str, BaseDistribution]:
    weights: dict[str, BaseDistribution] = dict.fromkeys(NAMES, FloatDistribution(low, high))
    return {"operator": OPERATOR, **weights} if arms else weights


def _sip(space: dict[str, BaseDistribution], **options: Any) -> SIPSampler:
    return SIPSampler(seed=0, n_startup_trials=4, search_space=space, budget=SMALL, **options)


SAMPLERS: dict[str, Callable[[dict[str, BaseDistribution]], SIPSampler]] = {
    "knowledge-gradient": _sip,
    "qlognehvi": lambda space: _sip(space, acquisition="qlognehvi"),
    "arms": lambda space: _sip(space, arms=ARMS),
    "ap-bmm": lambda space: BMMSampler(seed=0, n_startup_trials=4, search_space=space),
    "bambo": lambda space: BMMSampler(
        BMMSettings("default", "qehvi"), seed=0, n_startup_trials=4, search_space=space
    ),
}


@pytest.mark.parametrize(
    ("sampler", "bounds"),
    [
        *((name, (0.2, 0.8)) for name in SAMPLERS),
        ("knowledge-gradient", (0.2, 1.0)),
        ("arms", (0.0, 0.8)),
    ],
)
def test_parents_outside_the_bounds_are_data_and_no_proposals(
    sampler: str, bounds: Bounds
) -> None:
    space = _space(*bounds, sampler == "arms")
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=SAMPLERS[sampler](space)
    )
    whole = _space(0.0, 1.0, sampler == "arms")
    for level in (0.0, 1.0):
        params: dict[str, Any] = dict.fromkeys(NAMES, level)
        params |= {"operator": "a"} if sampler == "arms" else {}
        waiting = create_trial(state=TrialState.WAITING, params=params, distributions=whole)
        study.add_trial(waiting)
    for _ in range(8):
        trial = study.ask(space)
        weights = [trial.params[name] for name in NAMES]
        values = [sum(weights), sum(w * w for w in weights)]
        trial.set_user_attr("standard_errors", [0.01, 0.01])
        study.tell(trial, values)
    low, high = bounds
    for measured in study.trials[2:]:
        assert all(low <= measured.params[name] <= high for name in NAMES)
    model = fit_study(study)
    assert model is not None
    assert len(model.trials) == 8
    for found in recommend(study, [0.99, 0.9, 0.5, 0.1, 0.01]):
        if found.number is not None:
            assert found.params == study.trials[found.number].params
            continue
        # A combination can be searched, and is what its values were predicted for.
        assert all(low <= found.params[name] <= high for name in NAMES)
        means, _ = model.surrogate.posterior(model.cube.encode([found.params]))
        predicted = (means * signs(study.directions))[0].tolist()
        assert found.values == pytest.approx(predicted, abs=1e-6)
