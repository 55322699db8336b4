"""Compare samplers on noisy merge-like problems with a known truth: tables and a plot.

    python benchmarks/sampler/bench.py --out runs/sampler

Every sampler gets 48 evaluations of 70 questions. Finished runs are kept in the folder and not
repeated. `--groups tune` runs the problems that the sampler's settings were chosen on;
recommending and equating were chosen on those of `synthetic`. On `fresh` nothing was chosen but
how clear a recommended gain must be, on 13 of its searches.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import get_args

import torch
from problems import GROUPS
from rivals import Importance, Start
from runs import Run, Task, load_or_run
from tables import (
    print_importance_table,
    print_main_table,
    print_problem_table,
    print_recommended_table,
    print_stop_table,
)

RIVALS = ("random", "nsga2", "tpe", "gp")
# Of the group `fresh` rivals run on ten problems of each kind of questions; importances are told
# on five of each kind that does not rotate.
RIVALS_BELOW, TOLD_BELOW = 310, 305


def main() -> None:
    """Run what is missing, then print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS)[1:])
    parser.add_argument("--seeds", type=int, default=1, help="runs a problem")
    parser.add_argument("--importance-seeds", type=int, default=2, help="the same, of that table")
    parser.add_argument("--botorch", action="store_true", help="BoTorchSampler too: slow")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--plot", type=Path, help="write the plot to this file")
    parser.add_argument("--only", nargs="+", help="run these samplers, and print nothing")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    tasks = _tasks(arguments)
    if arguments.only:
        tasks = [task for task in tasks if task.sampler in arguments.only]
    with ProcessPoolExecutor(arguments.processes, initializer=_one_thread) as pool:
        runs = list(pool.map(partial(load_or_run, folder=arguments.out), tasks))
        if not arguments.only:
            _print(runs, arguments, pool)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _tasks(arguments: argparse.Namespace) -> list[Task]:
    problems = [name for group in arguments.groups for name in GROUPS[group]]
    tasks = []
    for seed, problem in product(range(arguments.seeds), problems):
        tasks.append(Task(problem, "mergefront", seed=seed))
        if problem in GROUPS["fresh"] and _number(problem) >= RIVALS_BELOW:
            continue
        for start in get_args(Start) if problem not in GROUPS["fresh"] else ("uniform",):
            rivals = _rivals(problem, arguments.botorch)
            tasks += [Task(problem, rival, start, seed, "none") for rival in rivals]
        if problem in GROUPS["synthetic"]:
            tasks.append(Task(problem, "sip-nehvi", seed=seed))
    told = [name for name in problems if name in GROUPS["synthetic"]]
    for problem, kind in product(_told_fresh(problems), get_args(Importance)):
        tasks.append(Task(problem, "mergefront", importance=kind))
    for seed, problem in product(range(arguments.importance_seeds), told):
        kinds = get_args(Importance)
        tasks += [Task(problem, "mergefront", "uniform", seed, kind) for kind in kinds]
    return list(dict.fromkeys(tasks))


def _number(problem: str) -> int:
    return int(problem.split("/")[2])


def _told_fresh(problems: Sequence[str]) -> list[str]:
    """Return the fresh problems on which wrong importances are told."""
    fresh = [name for name in problems if name in GROUPS["fresh"] and "/rotating/" not in name]
    return [name for name in fresh if _number(name) < TOLD_BELOW]


def _rivals(problem: str, botorch: bool) -> tuple[str, ...]:
    """Return who runs on a problem; BoTorchSampler takes five CPU-minutes a run."""
    return (*RIVALS, "botorch") if botorch and problem in GROUPS["synthetic"] else RIVALS


def _print(runs: list[Run], arguments: argparse.Namespace, pool: ProcessPoolExecutor) -> None:
    for group in arguments.groups:
        of_group = [run for run in runs if run.task.problem in GROUPS[group]]
        of_group = [run for run in of_group if run.task.seed < arguments.seeds]
        if group == "fresh":  # all samplers on the same problems
            of_group = [run for run in of_group if _number(run.task.problem) < RIVALS_BELOW]
        if group in ("tune", "synthetic", "fresh", "steps"):
            for noise in ("independent", "shared", "rotating"):
                chosen = [run for run in of_group if f"/{noise}/" in run.task.problem]
                if chosen:
                    print_main_table(f"{group}, {noise} questions", chosen, pool)
        else:
            print_main_table(group, of_group, pool)
    synthetic = [run for run in runs if run.task.problem in GROUPS["synthetic"]]
    told = _told_fresh(GROUPS["fresh"])
    for members in (synthetic, [run for run in runs if run.task.problem in told]):
        if members:
            print_importance_table(members, pool)
    print_problem_table(runs, pool)
    fresh = [run for run in runs if run.task.problem in GROUPS["fresh"]]
    if fresh:
        print_recommended_table(fresh, pool)
        some = [run for run in fresh if _number(run.task.problem) < RIVALS_BELOW]
        print_stop_table(some, pool)
    if arguments.plot:
        from plot import draw

        draw([r for r in synthetic if r.task.seed < arguments.seeds], arguments.plot, pool)


if __name__ == "__main__":
    main()
