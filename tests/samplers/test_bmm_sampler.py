"""The published optimizers: contract, lengthscales, determinism."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import MultiObjectiveSamplerTestCase

from mergefront.samplers import BMMSampler, BMMSettings, MoeadCmaesSampler, Rerank
from mergefront.samplers._gp import Observations
from mergefront.samplers._gp.published import fit_published, rank_lengthscales

NAMES = [f"layer_{i:03d}" for i in range(4)]
TARGET = np.array([0.9, 0.1, 0.9, 0.1])
SPACE = {name: FloatDistribution(0.0, 1.0) for name in NAMES}
MAKERS: dict[str, Callable[[], BaseSampler]] = {
    "sip-bmm": lambda: BMMSampler(
        importance=dict.fromkeys(NAMES, 0.5), seed=1, search_space=SPACE, n_startup_trials=4
    ),
    "ap-bmm": lambda: BMMSampler(
        BMMSettings(rerank=Rerank(pool=3)), seed=1, search_space=SPACE, n_startup_trials=4
    ),
    "bambo": lambda: BMMSampler(
        BMMSettings("default", "qehvi"), seed=1, search_space=SPACE, n_startup_trials=4
    ),
    "moead-cmaes": lambda: MoeadCmaesSampler(seed=1, search_space=SPACE, n_startup_trials=4),
}


def _search(sampler: BaseSampler, n: int, restart_after: int | None = None) -> optuna.Study:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for number in range(n):
        if number == restart_after:
            study.sampler = type(sampler)(**_options(sampler))
        trial = study.ask()
        x = np.array([trial.suggest_float(name, 0.0, 1.0) for name in NAMES])
        trial.set_user_attr("standard_errors", [0.01, 0.01])
        study.tell(trial, [1 - float(((x - TARGET) ** 2).mean()), float(x.mean())])
    return study


def _options(sampler: BaseSampler) -> dict[str, Any]:
    common = {"seed": 1, "search_space": SPACE, "n_startup_trials": 4}
    if isinstance(sampler, BMMSampler):
        return {**common, "settings": sampler._settings, "importance": sampler._importance}
    return common


@pytest.mark.parametrize("name", MAKERS)
def test_proposals_are_distinct_and_survive_a_restart(name: str) -> None:
    study = _search(MAKERS[name](), 8)
    points = [tuple(trial.params.values()) for trial in study.trials]
    assert len(set(points)) == 8
    again = _search(MAKERS[name](), 8, restart_after=6)
    assert [trial.params for trial in again.trials] == [trial.params for trial in study.trials]


@pytest.mark.parametrize("name", ["sip-bmm", "ap-bmm", "bambo"])
def test_points_in_flight_are_not_proposed_again(name: str) -> None:
    study = _search(MAKERS[name](), 6)
    asked = [study.ask(dict(SPACE)) for _ in range(3)]
    points = np.array([list(trial.params.values()) for trial in asked])
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    assert distances[np.triu_indices(3, 1)].min() > 0.02


class TestBMMSampler(MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: BMMSampler(n_startup_trials=2, seed=0)


class TestMoeadCmaesSampler(MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: MoeadCmaesSampler(n_startup_trials=2, seed=0)


def test_lengthscales_follow_the_rank_of_the_importance() -> None:
    importance = torch.linspace(1, 0, 21, dtype=torch.double)
    lengths = rank_lengthscales(importance, 21).tolist()
    assert lengths == pytest.approx([0.5] * 4 + [1.0] * 5 + [2.0] * 6 + [5.0] * 6)
    assert rank_lengthscales(importance.flip(0), 21).tolist() == pytest.approx(lengths[::-1])


def test_importance_that_says_nothing_does_nothing() -> None:
    assert rank_lengthscales(torch.full((7,), 0.4), 7).tolist() == [1.0] * 7
    assert rank_lengthscales(None, 7).tolist() == [1.0] * 7
    tied = rank_lengthscales(torch.tensor([1.0, 1.0, 0.0, 0.0]).double(), 4)
    assert tied[0] == tied[1] < tied[2] == tied[3]


def _observed(n: int) -> Observations:
    rng = np.random.default_rng(0)
    X = torch.from_numpy(rng.uniform(size=(n, 4)))
    Y = torch.stack([3 * X[:, 0], 3 * X[:, 0] ** 2], dim=1)
    importance = torch.tensor([0.0, 1.0, 0.0, 0.0]).double()  # wrong: column 0 matters
    return Observations(X, Y, torch.full_like(Y, 0.05), importance)


def test_a_prior_holds_where_an_initial_value_is_forgotten() -> None:
    """The released code sets initial values and calls them a prior; the fit moves them."""

    def length(kind: Any, column: int) -> float:
        kernel: Any = fit_published(_observed(10), kind).models[0].covar_module
        kernel = kernel.base_kernel if kind == "initial" else kernel
        return float(kernel.lengthscale.detach()[0, column])

    # Nothing but column 0 matters; column 1, said to matter, starts at 0.5, the others at 3.
    assert length("prior", 1) < 0.8 * length("prior", 2)
    assert length("initial", 1) == pytest.approx(length("initial", 2), rel=0.01)


@pytest.mark.parametrize("given", [{"lengthscales": "none"}, {"acquisition": "ei"}])
def test_wrong_settings_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        BMMSettings(**given)


def test_saas_is_fitted_by_nuts() -> None:
    pytest.importorskip("numpyro")
    sampler = BMMSampler(BMMSettings("saas"), seed=0, search_space=SPACE, n_startup_trials=4)
    study = _search(sampler, 5)
    assert all(0 <= value <= 1 for value in study.trials[-1].params.values())
