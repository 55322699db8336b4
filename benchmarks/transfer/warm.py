"""What earlier studies save a search, and what wrong ones cost it, where the truth is known.

    PYTHONPATH=benchmarks/sampler python benchmarks/transfer/warm.py --out runs/transfer

Problems are those of the synthetic merge family (docs/benchmarks/sampler.md). Every search has 48
evaluations of 70 questions, and our sampler is told no importance. Rows differ in what it knows of
an earlier search of 48 evaluations; differences from the row without are paired by problem.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
import torch
from problems import hypervolume, make_problem, utilities
from problems.base import PREFERENCES
from problems.suite import _FIVE
from problems.synthetic import Synthetic

from mergefront.samplers import SIPSampler, recommend

BUDGET, N_START = 48, 8
LOOKS = (16, 24, 29, 48)  # 29 is 60 % of 48
_JITTER = 0.3


def same(problem: Synthetic, rng: np.random.Generator) -> Synthetic:
    """The same pair, asked other questions."""
    return problem


def retrained(problem: Synthetic, rng: np.random.Generator) -> Synthetic:
    """A pair whose layers matter nearly as much: trained with another seed."""
    other = _copy(problem)
    factors = torch.from_numpy(np.exp(_JITTER * rng.normal(size=problem._shares.shape)))
    shares = problem._shares * factors
    other._shares = shares / shares.sum(dim=1, keepdim=True)
    peaks = problem._peaks + torch.from_numpy(0.1 * rng.normal(size=problem._peaks.shape))
    other._peaks = peaks.clamp(0.4, 1.3)
    return other


def shallower(problem: Synthetic, rng: np.random.Generator) -> Synthetic:
    """A retrained pair with 24 layers instead of 36."""
    other = retrained(problem, rng)
    other.dim = 24
    thirds = torch.repeat_interleave(other._shares / 2, 2, dim=1)  # 72 half layers, 3 a new one
    other._shares = thirds.reshape(2, 24, 3).sum(-1)
    other._peaks = torch.repeat_interleave(other._peaks, 2, dim=1).reshape(2, 24, 3).mean(-1)
    return other


def permuted(problem: Synthetic, rng: np.random.Generator) -> Synthetic:
    """The same pair, layers in another order: a wrong source that looks right."""
    other = _copy(problem)
    order = torch.from_numpy(rng.permutation(problem.dim))
    other._shares, other._peaks = problem._shares[:, order], problem._peaks[:, order]
    return other


def unrelated(problem: Synthetic, rng: np.random.Generator) -> Synthetic:
    """Another pair altogether."""
    return Synthetic(int(rng.integers(10_000, 20_000)), problem.shape, problem.noise)


def _copy(problem: Synthetic) -> Synthetic:
    return Synthetic(0, problem.shape, problem.noise, problem.dim)


SOURCES: dict[str, Callable[[Synthetic, np.random.Generator], Synthetic] | None] = {
    "none": None,
    "same pair, other questions": same,
    "retrained": retrained,
    "retrained, 24 layers": shallower,
    "permuted": permuted,
    "unrelated": unrelated,
}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(400, 408)))
    parser.add_argument("--noise", default="independent")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = [f"{_FIVE[s % 5]}/{arguments.noise}/{s}" for s in arguments.seeds]
    tasks = [(name, source) for source in arguments.sources for name in names]
    with ProcessPoolExecutor(arguments.processes) as pool:
        rows = list(pool.map(partial(_load_or_run, folder=arguments.out), tasks))
    found = dict(zip(tasks, rows, strict=True))
    for score in ("hypervolume", "recommended"):
        _print(score, found, arguments.sources, names)


def _load_or_run(task: tuple[str, str], folder: Path) -> dict[str, list[float]]:
    path = folder / f"{task[0]} {task[1]}.json".replace("/", "-").replace(" ", "_")
    if not path.exists():
        torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        path.write_text(json.dumps(_scores(*task)))
    content: dict[str, list[float]] = json.loads(path.read_text())
    return content


def _scores(name: str, source: str) -> dict[str, list[float]]:
    problem = make_problem(name)
    assert isinstance(problem, Synthetic)
    make, earlier = SOURCES[source], []
    if make is not None:
        rng = np.random.default_rng([int(name.split("/")[-1]), 5])
        earlier = [search(make(problem, rng), 1)]
    study = search(problem, 0, warm_start=earlier)
    points = [[trial.params[k] for k in problem.names] for trial in study.trials]
    truths = problem.truth(torch.tensor(points, dtype=torch.double)).numpy()
    whole = problem.best_hypervolume
    volumes = [1 - hypervolume(truths[:n], problem.reference) / whole for n in LOOKS]
    return {
        "hypervolume": volumes,
        "recommended": [_recommended(study, problem, n) for n in LOOKS],
    }


def search(problem: Synthetic, seed: int, budget: int = BUDGET, **options: Any) -> optuna.Study:
    """Search a problem with our sampler and some of its options."""
    sampler = SIPSampler(n_startup_trials=N_START, seed=seed, **options)
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    rng = np.random.default_rng([seed, 29])
    for _ in range(budget):
        trial = study.ask()
        x = np.array([trial.suggest_float(name, 0.0, 1.0) for name in problem.names])
        measured = problem.measure(x, rng)
        trial.set_user_attr("standard_errors", measured.errors.tolist())
        study.tell(trial, measured.values.tolist())
    return study


def _recommended(study: optuna.Study, problem: Synthetic, n: int) -> float:
    part = optuna.create_study(directions=study.directions)
    told = study._storage.get_study_system_attrs(study._study_id)
    for key, value in told.items():
        part._storage.set_study_system_attr(part._study_id, key, value)
    part.add_trials(study.trials[:n])
    weights = [(float(w), float(1 - w)) for w in PREFERENCES]
    advice = recommend(part, weights, problem.reference.tolist(), span=[1.0, 1.0])
    points = [[one.params[k] for k in problem.names] for one in advice]
    truths = problem.truth(torch.tensor(points, dtype=torch.double)).numpy()
    got = utilities(truths, problem.reference).diagonal()
    return float(np.mean((problem.best_utilities - got) / problem.best_utilities))


def _print(score: str, found: dict[Any, Any], sources: Sequence[str], names: list[str]) -> None:
    print(f"\n{score} regret\n")
    print(f"| earlier study | {' | '.join(f'{n} evaluations' for n in LOOKS)} |")
    print(f"|---{'|---' * len(LOOKS)}|")
    for source in sources:
        cells = []
        for place in range(len(LOOKS)):
            values = [found[name, source][score][place] for name in names]
            cell = _mean(values)
            if source != "none" and "none" in sources:
                without = [found[name, "none"][score][place] for name in names]
                changes = [a - b for a, b in zip(values, without, strict=True)]
                cell += f" ({_mean(changes, '+')})"
            cells.append(cell)
        print(f"| {source} | {' | '.join(cells)} |")


def _mean(values: Sequence[float], sign: str = "") -> str:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{fmean(values):{sign}.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
