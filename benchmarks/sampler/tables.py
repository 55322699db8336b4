"""The benchmark's tables, as Markdown on standard output."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from math import sqrt
from statistics import fmean, stdev

from rivals import MODEL_BASED, N_START
from runs import BUDGET, Run
from scores import (
    best_choice_regret,
    hypervolume_regret,
    recommended_regret,
    reported_regret,
    stopped_at,
)

Score = Callable[[Run], float]
# Expected gains below which a search is ended, as shares of utility.
STOPS = (0.002, 0.005, 0.01, 0.02)


def print_main_table(title: str, runs: Sequence[Run], pool: Executor) -> None:
    """Print both scores of every sampler and start, and of the uniform merges alone."""
    groups: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        if run.task.importance in ("true", "none") and (
            run.task.importance == "true" or not run.task.sampler.startswith(("merge", "sip"))
        ):
            groups[run.task.sampler, run.task.start].append(run)
    ours = groups["mergefront", "uniform"]
    print(f"\n**{title}** ({len(ours)} runs a row)\n")
    print("| sampler | start | hypervolume regret | selection regret: observed |", end="")
    print(" own model | denoised | recommended | less mergefront's | best choice |")
    print("|---|---|---|---|---|---|---|---|---|")
    taken = _recommended(ours, pool)
    _print_row(("uniform merges alone", ""), ours, {}, taken, pool, n=N_START)
    for name, members in sorted(groups.items(), key=_order):
        own = taken if members is ours else _recommended(members, pool)
        _print_row(name, members, own, taken, pool)


def _recommended(runs: Sequence[Run], pool: Executor) -> dict[tuple[str, int], float]:
    """Return what is lost by whoever takes what is recommended, by problem and seed."""
    regrets = pool.map(partial(recommended_regret, n=BUDGET), runs)
    names = [(run.task.problem, run.task.seed) for run in runs]
    return dict(zip(names, regrets, strict=True))


def _order(item: tuple[tuple[str, str], list[Run]]) -> tuple[int, str, str]:
    names = ("random", "nsga2", "tpe", "gp", "botorch", "sip-nehvi", "mergefront")
    sampler, start = item[0]
    return names.index(sampler), start, sampler


def _print_row(
    name: tuple[str, str],
    runs: Sequence[Run],
    taken: Mapping[tuple[str, int], float],
    ours: Mapping[tuple[str, int], float],
    pool: Executor,
    n: int = BUDGET,
) -> None:
    """Print a sampler and start with its scores.

    Args:
        name: Of sampler and start.
        runs: Of them.
        taken: From `_recommended`, of `runs`. Nothing is recommended without proposals.
        ours: The same of our sampler.
        pool: Computes scores.
        n: Of the evaluations that are looked at.
    """
    cells = [_mean(pool.map(partial(hypervolume_regret, n=n), runs))]
    cells.append(_mean(pool.map(partial(reported_regret, n=n, reported="observed"), runs)))
    has_model = name[0] in MODEL_BASED
    model = partial(reported_regret, n=n, reported="botorch")
    cells.append(_mean(pool.map(model, runs)) if has_model else "")
    denoised = partial(reported_regret, n=n, reported="denoised")
    cells.append(_mean(pool.map(denoised, runs)) if n == BUDGET else "")
    cells.append(_mean(taken.values()) if taken else "")
    less = [regret - ours[run] for run, regret in taken.items() if run in ours]
    cells.append(_mean(less) if less and any(less) else "")
    cells.append(_mean(pool.map(partial(best_choice_regret, n=n), runs)))
    print(f"| {' | '.join(name)} | " + " | ".join(cells) + " |", flush=True)


def print_importance_table(runs: Sequence[Run], pool: Executor) -> None:
    """Print what true and wrong importances do to our sampler, against none in pairs."""
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.task.sampler == "mergefront":
            groups[run.task.importance].append(run)
    scores: dict[str, tuple[list[float], ...]] = {}
    for kind, members in groups.items():
        picked = pool.map(partial(reported_regret, n=BUDGET, reported="denoised"), members)
        taken = pool.map(partial(recommended_regret, n=BUDGET), members)
        searched = pool.map(partial(hypervolume_regret, n=BUDGET), members)
        scores[kind] = list(picked), list(taken), list(searched)
    print("\n**What the importance does** (differences from none on the same problems)\n")
    print("| importance | selection regret, denoised | less none's | recommended |", end="")
    print(" less none's | hypervolume regret | less none's |\n|---|---|---|---|---|---|---|")
    for kind, values in scores.items():
        pairs = zip(values, scores["none"], strict=True)
        cells = [
            f"{_mean(value)} | {_mean([a - b for a, b in zip(value, none, strict=True)])}"
            for value, none in pairs
        ]
        print(f"| {kind} | " + " | ".join(cells) + " |")


def print_problem_table(runs: Sequence[Run], pool: Executor) -> None:
    """Print our sampler's selection regret beside that of the uniform merges, per problem."""
    ours = [r for r in runs if r.task.sampler == "mergefront" and r.task.importance == "true"]
    print("\n**Problem by problem**: selection regret\n")
    print(
        "| problem | uniform merges, observed | mergefront, denoised | mergefront, recommended |"
    )
    print("|---|---|---|---|")
    for name in dict.fromkeys(run.task.problem for run in ours):
        members = [run for run in ours if run.task.problem == name]
        uniform = partial(reported_regret, n=N_START, reported="observed")
        denoised = partial(reported_regret, n=BUDGET, reported="denoised")
        print(f"| {name} | {_mean(pool.map(uniform, members))} | ", end="")
        print(f"{_mean(pool.map(denoised, members))} | ", end="")
        print(f"{_mean(pool.map(partial(recommended_regret, n=BUDGET), members))} |")


def print_recommended_table(runs: Sequence[Run], pool: Executor) -> None:
    """Print what is recommended against picks among the evaluated points, in pairs of a search."""
    ours = [r for r in runs if r.task.sampler == "mergefront" and r.task.importance == "true"]
    print("\n**Recommended against picked** (selection regret of the same searches)\n")
    print(
        "| questions | searches | uniform merges, observed | picked, denoised | recommended |",
        end="",
    )
    print(" less picked | best choice | searches where uniform merges lose less |")
    print("|---|---|---|---|---|---|---|---|")
    for noise in ("independent", "shared", "rotating"):
        members = [run for run in ours if f"/{noise}/" in run.task.problem]
        if not members:
            continue
        uniform = list(pool.map(partial(reported_regret, n=N_START, reported="observed"), members))
        picked = list(pool.map(partial(reported_regret, n=BUDGET, reported="denoised"), members))
        taken = list(pool.map(partial(recommended_regret, n=BUDGET), members))
        best = list(pool.map(partial(best_choice_regret, n=BUDGET), members))
        less = [a - b for a, b in zip(taken, picked, strict=True)]
        worse = sum(a > b for a, b in zip(taken, uniform, strict=True))
        cells = " | ".join(_mean(values) for values in (uniform, picked, taken, less, best))
        print(f"| {noise} | {len(members)} | {cells} | {worse} |", flush=True)


def print_stop_table(runs: Sequence[Run], pool: Executor) -> None:
    """Print what ending a search by the expected gain saves and loses, against all evaluations."""
    ours = [r for r in runs if r.task.sampler == "mergefront" and r.task.importance == "true"]
    whole = _recommended(ours, pool).values()
    print(f"\n**`study.stop: {{gain: ...}}`** ({len(ours)} searches of {BUDGET} evaluations)\n")
    print("| gain | ended early | evaluations | recommended | less all evaluations' |", end="")
    print(" hypervolume regret, less all evaluations' |\n|---|---|---|---|---|---|")
    for gain in STOPS:
        ends = [stopped_at(run, gain) for run in ours]
        taken = list(pool.map(recommended_regret, ours, ends))
        found = list(pool.map(hypervolume_regret, ours, ends))
        all_found = pool.map(partial(hypervolume_regret, n=BUDGET), ours)
        cells = [f"{100 * gain:g} %", str(sum(n < BUDGET for n in ends)), _mean(ends)]
        cells += [_mean(taken), _mean([a - b for a, b in zip(taken, whole, strict=True)])]
        cells.append(_mean([a - b for a, b in zip(found, all_found, strict=True)]))
        print(f"| {' | '.join(cells)} |", flush=True)


def _mean(values: Iterable[float]) -> str:
    numbers = list(values)
    if len(numbers) == 1:
        return f"{numbers[0]:.3f} (one run)"
    error = stdev(numbers) / sqrt(len(numbers))
    return f"{fmean(numbers):.4f} ± {error:.4f}"
