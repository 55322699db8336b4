"""One study over several operators beside other ways to spend the same evaluations, truth known.

    make bench-joint

Three operators over 16 layers, as on live models; every way gets 24 evaluations of 70 questions.
What counts is the hypervolume of the true values of the front that is reported (denoised), as a
share of the best possible. Finished runs are kept in the folder and not repeated.
"""

import argparse
import json
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
import torch
from botorch.utils.multi_objective.pareto import is_non_dominated
from joint_problem import JointProblem
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from problems import hypervolume

from mergefront.samplers import PerTrialSampler, SIPSampler, denoise, uniform_levels

N_OPERATORS, N_LAYERS = 3, 16
BUDGET, N_START = 24, 8
WAYS = ("joint", "fixed", "split", "tpe", "random")


def main() -> None:
    """Run what is missing, then print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/joint/problems"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tasks = list(product(range(arguments.seeds), arguments.ways))
    with ProcessPoolExecutor(arguments.processes, initializer=_quiet) as pool:
        found = dict(
            zip(tasks, pool.map(partial(_load_or_run, arguments.out), tasks), strict=True)
        )
    rows: dict[str, list[float]] = {}
    for way in arguments.ways:
        results = [found[seed, way] for seed in range(arguments.seeds)]
        if way == "fixed":
            rows["best fixed operator, known afterwards"] = [max(r) for r in results]
            rows["fixed operator, mean of all"] = [fmean(r) for r in results]
        else:
            rows[way] = [r[0] for r in results]
    n = arguments.seeds
    print(f"\n| way | share of the best hypervolume | less than joint's ({n} problems) |")
    print("|---|---|---|")
    for name, shares in rows.items():
        less = [a - b for a, b in zip(rows["joint"], shares, strict=True)]
        print(f"| {name} | {_mean(shares)} | {_mean(less) if name != 'joint' else ''} |")


def _quiet() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"


def _load_or_run(folder: Path, task: tuple[int, str]) -> list[float]:
    seed, way = task
    path = folder / f"{way}_{seed}.json"
    if not path.exists():
        shares = _shares(JointProblem(seed, N_OPERATORS, N_LAYERS), seed, way)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(shares))
        part.rename(path)
    shares = json.loads(path.read_text())
    return [float(share) for share in shares]


def _shares(problem: JointProblem, seed: int, way: str) -> list[float]:
    """Return the share of the best hypervolume that each reported front has."""
    single = [(arm,) for arm in range(len(problem.arms))]
    if way == "fixed":
        return [_share(problem, [_search(problem, seed, way, arm, BUDGET)]) for arm in single]
    if way == "split":
        share = BUDGET // len(single)
        return [_share(problem, [_search(problem, seed, way, arm, share) for arm in single])]
    everyone = tuple(range(len(single)))
    return [_share(problem, [_search(problem, seed, way, everyone, BUDGET)])]


def _share(problem: JointProblem, studies: Sequence[optuna.Study]) -> float:
    """Return the share of the front of all studies' denoised values."""
    believed = [denoise(study) for study in studies]
    means = torch.cat([each.means for each in believed])
    truths = [trial.user_attrs["truth"] for each in believed for trial in each.trials]
    front = np.array(truths)[is_non_dominated(means).numpy()]
    return hypervolume(front, problem.reference) / problem.best_hypervolume


def _search(
    problem: JointProblem, seed: int, way: str, arms: tuple[int, ...], budget: int
) -> optuna.Study:
    space: dict[str, BaseDistribution] = {}
    if len(arms) > 1:
        space["operator"] = CategoricalDistribution([problem.operators[a] for a in arms])
    space |= dict.fromkeys(problem.names, FloatDistribution(0.0, 1.0))
    study = optuna.create_study(directions=["maximize", "maximize"])
    first = _first(problem, arms, budget)
    study.sampler = _sampler(way, space, seed, min(N_START, len(first)))
    for params in first:
        study.enqueue_trial(params)
    rng = np.random.default_rng([29, seed, *arms])
    for _ in range(budget):
        trial = study.ask(space)
        arm = problem.arms[arms[0]]
        if len(arms) > 1:
            arm = problem.arms[problem.operators.index(trial.params["operator"])]
        x = np.array([trial.params[name] for name in problem.names])
        measured = arm.measure(x, rng)
        with torch.no_grad():
            truth = arm.truth(torch.from_numpy(x)[None])[0].tolist()
        trial.set_user_attr("truth", truth)
        trial.set_user_attr("standard_errors", measured.errors.tolist())
        study.tell(trial, measured.values.tolist())
    return study


def _first(problem: JointProblem, arms: tuple[int, ...], budget: int) -> list[dict[str, Any]]:
    """Return the parents, then uniform merges: of all operators in turn, or at spread levels."""
    if len(arms) == 1:
        levels = uniform_levels(N_START if budget == BUDGET else N_START - 3)
        return [dict.fromkeys(problem.names, level) for level in levels]
    turns = range(N_START - 2)  # each operator goes through the levels from another one on
    levels = [
        0.0,
        1.0,
        *(uniform_levels(5)[2:][(k // len(arms) + k % len(arms)) % 3] for k in turns),
    ]
    chosen = [0, 0, *(k % len(arms) for k in turns)]
    return [
        {"operator": problem.operators[arms[a]], **dict.fromkeys(problem.names, level)}
        for a, level in zip(chosen, levels, strict=True)
    ]


def _sampler(way: str, space: dict[str, BaseDistribution], seed: int, n_first: int) -> BaseSampler:
    if way == "tpe":
        return PerTrialSampler(lambda s: TPESampler(seed=s, n_startup_trials=0), seed)
    if way == "random":
        return PerTrialSampler(lambda s: RandomSampler(seed=s), seed)
    operator = space.get("operator")
    arms = None
    if isinstance(operator, CategoricalDistribution):
        arms = [{"operator": choice} for choice in operator.choices]
    return SIPSampler(seed=seed, n_startup_trials=n_first, search_space=space, arms=arms)


if __name__ == "__main__":
    main()
