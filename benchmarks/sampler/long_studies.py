"""What a bound on the trials that beliefs are conditioned on costs, and whether they stay honest.

    python benchmarks/sampler/long_studies.py

Studies of 80 weights on problems with a known truth, searched by an evolution of what was measured
best, so that the history is as lucky and as crowded near the front as a real one. Each is believed
twice: conditioned on all of its trials, and on as many as the product allows.
"""

import argparse
from statistics import fmean, stdev
from unittest.mock import patch

import numpy as np
import optuna
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, create_trial
from problems import Problem, hypervolume, make_problem, utilities

from mergefront.samplers import _beliefs, fit_study
from mergefront.samplers.adviser import Adviser

N_UNIFORM, N_RANDOM = 8, 100
SIZES, FEW = (0.05, 0.15, 0.4), (4, 10)
TITLES = ("all trials, rms of z", "front, mean z", "front, rms of z", "front, within 1")
SCORES = (*TITLES, "front, deviation", "selection regret", "hypervolume regret")


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--known", type=int, nargs="*", default=[600, 1000, 2000])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    bounds = [*arguments.known, arguments.trials]
    rows: dict[int, list[list[float]]] = {bound: [] for bound in bounds}
    for seed in range(arguments.seeds):
        problem = make_problem(f"plain80/independent/{400 + seed}")
        study = searched(problem, arguments.trials, seed)
        for bound in bounds:
            rows[bound].append(scores(problem, study, bound))
            print(seed, bound, rows[bound][-1], flush=True)
    print("| conditioned on | " + " | ".join(SCORES) + " |")
    print("|---" * (len(SCORES) + 1) + "|")
    for bound, each in rows.items():
        print(f"| {bound} | " + " | ".join(map(_cell, zip(*each, strict=True))) + " |")


def _cell(values: tuple[float, ...]) -> str:
    return f"{fmean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"


def searched(problem: Problem, n: int, seed: int) -> optuna.Study:
    """Return a study of `n` trials: uniform, random, and children of the luckiest so far."""
    rng = np.random.default_rng([11, seed])
    space = {name: FloatDistribution(0.0, 1.0) for name in problem.names}
    points = [np.full(problem.dim, level) for level in np.linspace(0, 1, N_UNIFORM)]
    points += list(rng.random((N_RANDOM, problem.dim)))
    study = optuna.create_study(directions=["maximize", "maximize"])
    values = np.empty((0, 2))
    trials: list[FrozenTrial] = []
    for number in range(n):
        if number == len(points):
            points.append(_child(np.array(points), values, problem, rng))
        told = problem.measure(points[number], rng)
        values = np.concatenate([values, told.values[None]])
        params = dict(zip(space, points[number].tolist(), strict=True))
        attributes = {"standard_errors": told.errors.tolist()}
        trials.append(
            create_trial(
                values=told.values.tolist(),
                params=params,
                distributions=dict(space),
                user_attrs=attributes,
            )
        )
    study.add_trials(trials)
    return study


def _child(
    points: np.ndarray, values: np.ndarray, problem: Problem, rng: np.random.Generator
) -> np.ndarray:
    """Return a mixture of two of the best as measured, for one preference, with a few moved."""
    preference = rng.integers(19)
    best = utilities(values, problem.reference)[:, preference].argsort()[-20:]
    one, other = points[rng.choice(best, 2)]
    share = rng.choice([0.0, rng.random()])
    moved = rng.random(problem.dim) < rng.choice([*FEW, problem.dim]) / problem.dim
    moves = moved * rng.normal(size=problem.dim) * rng.choice(SIZES)
    child: np.ndarray = (one + share * (other - one) + moves).clip(0.0, 1.0)
    return child


def scores(problem: Problem, study: optuna.Study, bound: int) -> list[float]:
    """Return what `SCORES` names, for beliefs conditioned on so many trials at most."""
    with patch.object(_beliefs, "MOST_POINTS", bound):
        model = fit_study(study)
    assert model is not None
    means, deviations = (part.numpy() for part in model.believed)
    with torch.no_grad():
        truth = problem.truth(model.observations.X).numpy()
    z = (truth - means) / deviations
    adviser = Adviser.of(model, study, problem.reference.tolist())
    preferences = torch.linspace(0.05, 0.95, 19, dtype=torch.double)
    weights = torch.stack([preferences, 1 - preferences], dim=1)
    picks = adviser.of_trials(weights).argmax(dim=0).numpy()
    front = np.unique(picks)
    got = utilities(truth, problem.reference)[picks, np.arange(19)]
    return [
        float(np.sqrt((z**2).mean())),
        float(z[front].mean()),
        float(np.sqrt((z[front] ** 2).mean())),
        float((np.abs(z[front]) <= 1).mean()),
        float(deviations[front].mean()),
        float((problem.best_utilities - got).mean()),
        problem.best_hypervolume - hypervolume(truth[front], problem.reference),
    ]


if __name__ == "__main__":
    main()
