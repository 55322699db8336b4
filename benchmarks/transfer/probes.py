"""What one-layer-at-a-time probes tell of the layers, and what they are worth at their price.

    PYTHONPATH=benchmarks/sampler python benchmarks/transfer/probes.py

A probe measures a merge whose weights are 0 but for one layer, which is 1, on a few questions;
its effect is the difference from weight 0, shrunk by its error. The first table says how well
effects rank the layers. The second one searches: without probes; with effects as the importance
(mean absolute effect of both objectives); with the sum of effects as what the surrogate expects.
Searches with probes have as many evaluations fewer as the probes' questions cost.
Finished searches are kept and not repeated.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import fmean
from unittest import mock

import numpy as np
import optuna
import torch
from problems import hypervolume, make_problem
from problems.base import Array, Problem
from problems.suite import _FIVE
from problems.synthetic import N_QUESTIONS, Synthetic
from scipy.stats import spearmanr
from torch import Tensor
from warm import BUDGET, _mean, _recommended, search

from mergefront.samplers import sip_sampler

# The package exports a function of the module's name.
DENOISE = import_module("mergefront.samplers.denoise")

WAYS = ("none", "importance", "mean", "both")


@dataclass(frozen=True)
class Effects:
    """A sum of effects, one a layer, as what is expected of a merge.

    Args:
        means: A `d`-dim tensor.
        variances: A `d`-dim tensor.
    """

    means: Tensor
    variances: Tensor

    def mean(self, A: Tensor) -> Tensor:
        """Return the sum at an `... x a x d`-dim tensor, 0 in the middle of the cube."""
        return (A - 0.5) @ self.means

    def covariance(self, A: Tensor, B: Tensor) -> Tensor:
        """Return its covariance, `... x a x b`-dim."""
        return ((A - 0.5) * self.variances) @ (B - 0.5).mT

    def variance(self, A: Tensor) -> Tensor:
        """Return its variance, `... x a`-dim."""
        return (A - 0.5).square() @ self.variances


def main() -> None:
    """Probe, search and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/transfer/probes"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(420, 425)))
    parser.add_argument("--noise", nargs="+", default=["independent", "shared"])
    parser.add_argument("--questions", type=int, default=14, help="of each probe")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    names = [f"{_FIVE[s % 5]}/{noise}/{s}" for noise in asked.noise for s in asked.seeds]
    for n in (asked.questions, N_QUESTIONS):
        ranks = [_correlation(make_problem(name), n) for name in names]
        print(f"Rank correlation with the true effects, {n} questions a probe: {_mean(ranks)}")
    tasks = [(name, way, asked.questions) for name in names for way in WAYS]
    with ProcessPoolExecutor(asked.processes) as pool:
        rows = list(pool.map(partial(_load_or_run, asked.out), tasks))
    found = dict(zip(tasks, rows, strict=True))
    print("\n| probes as | hypervolume regret | less none's | recommended | less none's |")
    print("|---|---|---|---|---|")
    for way in WAYS:
        cells = []
        for place in range(2):
            values = [found[name, way, asked.questions][place] for name in names]
            without = [found[name, "none", asked.questions][place] for name in names]
            cells += [_mean(values), _mean([a - b for a, b in zip(values, without, strict=True)])]
        print(f"| {way} | {' | '.join(cells)} |")


def _correlation(problem: Problem, n: int) -> float:
    """Return the rank correlation of measured with true effects, mean of both objectives."""
    measured, _ = probe(problem, n)
    points = torch.cat([torch.zeros(1, problem.dim), torch.eye(problem.dim)]).double()
    truths = problem.truth(points).numpy()
    true = truths[1:] - truths[0]
    return fmean(float(spearmanr(measured[:, j], true[:, j]).statistic) for j in range(2))


def probe(problem: Problem, n: int) -> tuple[Array, Array]:
    """Return every layer's measured effect and its standard error, two `d x 2`-dim arrays."""
    assert isinstance(problem, Synthetic)
    rng = np.random.default_rng([7, n])
    hand = list(range(n))
    base = problem.measure(np.zeros(problem.dim), rng, hand)
    rows = [problem.measure(x, rng, hand) for x in np.eye(problem.dim)]
    effects = np.stack([row.values - base.values for row in rows])
    errors = np.stack([np.hypot(row.errors, base.errors) for row in rows])
    return effects, errors


def shrunk(effects: Array, errors: Array) -> tuple[Array, Array]:
    """Return effects moved towards their mean by what errors explain of them; their variances."""
    mean = effects.mean(axis=0)
    spread = np.clip(effects.var(axis=0) - (errors**2).mean(axis=0), 0.0, None)
    share = spread / (spread + errors**2)
    return mean + (effects - mean) * share, errors**2 * share


def _load_or_run(folder: Path, task: tuple[str, str, int]) -> list[float]:
    name, way, n = task
    path = folder / f"{name} {way} {n}.json".replace("/", "-").replace(" ", "_")
    if not path.exists():
        path.write_text(json.dumps(_scores(name, way, n)))
    row: list[float] = json.loads(path.read_text())
    return row


def _scores(name: str, way: str, n: int) -> tuple[float, float]:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem = make_problem(name)
    assert isinstance(problem, Synthetic)
    budget, importance = BUDGET, None
    hints: tuple[tuple[Effects], ...] = ()
    if way != "none":
        effects, variances = shrunk(*probe(problem, n))
        budget -= round(n * (problem.dim + 1) / N_QUESTIONS)
        if way != "importance":
            # One standard deviation of random merges is one of the standardized objective.
            unit = (effects**2 + variances).sum(axis=0) / 12
            unit = unit.clip(1e-12)  # probes that tell nothing expect nothing
            told = (effects / np.sqrt(unit), variances / unit)
            hints = tuple(
                (Effects(torch.from_numpy(m), torch.from_numpy(v)),)
                for m, v in zip(told[0].T, told[1].T, strict=True)
            )
        if way != "mean":
            size = np.abs(effects / np.abs(effects).max(axis=0).clip(1e-9)).mean(axis=1)
            importance = dict(zip(problem.names, (size / size.max()).tolist(), strict=True))
    with (
        mock.patch.object(sip_sampler, "hints_of", lambda *_: hints),
        mock.patch.object(DENOISE, "hints_of", lambda *_: hints),
    ):
        study = search(problem, 0, budget, importance=importance)
        recommended = _recommended(study, problem, budget)
    points = [[trial.params[k] for k in problem.names] for trial in study.trials]
    truths = problem.truth(torch.tensor(points, dtype=torch.double)).numpy()
    volume = 1 - hypervolume(truths, problem.reference) / problem.best_hypervolume
    return float(volume), recommended


if __name__ == "__main__":
    main()
