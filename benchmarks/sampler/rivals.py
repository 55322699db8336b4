"""The samplers compared, each as a user would make it."""

import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
import optuna
from problems import Problem

from mergefront.samplers import SIPSampler

Start = Literal["own", "uniform"]
Importance = Literal["true", "none", "permuted", "inverted"]
N_START = 8

# Those whose proposals come from a model of the objectives.
MODEL_BASED = ("gp", "botorch")


def _nsga2(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(population_size=N_START, seed=seed)


def _gp(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=N_START)


def _botorch(seed: int) -> optuna.samplers.BaseSampler:
    from optuna_integration import BoTorchSampler
    from optuna_integration.botorch import qnehvi_candidates_func

    sampler: optuna.samplers.BaseSampler = BoTorchSampler(
        candidates_func=qnehvi_candidates_func, n_startup_trials=N_START, seed=seed
    )
    return sampler


RIVALS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, n_startup_trials=N_START),
    "nsga2": _nsga2,
    "gp": _gp,
    "botorch": _botorch,
}


def make_sampler(
    name: str, problem: Problem, seed: int, importance: Importance
) -> optuna.samplers.BaseSampler:
    """Return a sampler: ours, or a rival with its defaults and start-up trials for 8 points."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name in RIVALS:
            return RIVALS[name](seed)
    return SIPSampler(
        importance=known_importance(problem, seed, importance),
        n_startup_trials=N_START,
        acquisition="qlognehvi" if name == "sip-nehvi" else "knowledge-gradient",
        seed=seed,
    )


def known_importance(problem: Problem, seed: int, kind: Importance) -> dict[str, float] | None:
    """Return what the sampler is told about the layers."""
    true = problem.importance
    if kind == "none":
        return None
    rng = np.random.default_rng([seed, 23])
    values = {
        "true": true,
        "permuted": rng.permutation(true),
        "inverted": 1.0 - true,
    }[kind]
    return dict(zip(problem.names, values.tolist(), strict=True))
