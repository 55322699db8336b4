"""Optuna's samplers under one seed in several processes."""

from collections.abc import Callable

import optuna
import pytest
from optuna.samplers import BaseSampler

from mergefront.samplers import PerTrialSampler

MAKERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=2),
    "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=4),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, n_startup_trials=2),
}


def _points(name: str, restart_every: int) -> list[float]:
    study = optuna.create_study(directions=["maximize", "minimize"])
    for number in range(8):
        if number % restart_every == 0:  # a new worker with the same seed
            study.sampler = PerTrialSampler(MAKERS[name], seed=3)
        trial = study.ask()
        x = trial.suggest_float("x", 0, 1)
        study.tell(trial, [x, x**2])
    return [trial.params["x"] for trial in study.trials]


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_restarts_neither_repeat_nor_change_points(name: str) -> None:
    points = _points(name, restart_every=3)
    assert len(set(points)) == 8
    assert points == _points(name, restart_every=100)
