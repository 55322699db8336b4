"""The methods on noisy merge-like problems with a known truth, on a simulated clock.

    make bench-methods

Every method gets 48 evaluations of 70 questions, the parents among them, from 4 simulated workers
(or 16); evaluation times are log-normal, 300 seconds with a coefficient of variation of .6, and a
proposal takes 5 seconds. Finished runs are kept in the folder and not repeated.
"""

import argparse
import json
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

import numpy as np
import optuna
import torch
from clocks import time_ratios
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from problems import GROUPS, Problem, hypervolume, make_problem
from scores import selection_regret
from torch.quasirandom import SobolEngine

from mergefront.objectives.merging import find_blocks
from mergefront.samplers import (
    BMMSampler,
    BMMSettings,
    MoeadCmaesSampler,
    PerTrialSampler,
    Rerank,
    SIPSampler,
    denoise,
    uniform_levels,
)
from mergefront.study.comparison.simulation import SPAN, Evaluated, Simulation, usage

BUDGET, N_START = 48, 8
MEAN_SECONDS, VARIATION = 300.0, 0.6
SUGGEST_SECONDS = 5.0  # more than any of the samplers needs here
N_BLOCKS = 6

Importance = Literal["true", "none", "permuted"]
Granularity = Literal["layer", "blocks", "uniform"]


@dataclass(frozen=True)
class Method:
    """One row.

    Args:
        label: In tables.
        sampler: Name in `_make_sampler`.
        start: First trials: uniform merges, or parents and Sobol points.
        batch: Whether all workers wait for the slowest.
        importance: What the sampler is told.
        granularity: Of its weights.
        lengthscales: Of BMMSampler.
        rerank: Of BMMSampler: weights of gap and proximity.
        n_workers: Simulated.
        seed: Of the sampler, the measurements and the evaluation times.
    """

    label: str
    sampler: str
    start: Literal["uniform", "sobol"] = "sobol"
    batch: bool = False
    importance: Importance = "none"
    granularity: Granularity = "layer"
    lengthscales: str = "prior"
    rerank: tuple[float, float] | None = None
    n_workers: int = 4
    seed: int = 0


_SIP = Method("sip-bmm", "bmm", batch=True, importance="true")
_AP = Method("ap-bmm", "bmm", importance="true", rerank=(0.25, 0.15))
_OURS = Method("mergefront", "mergefront", "uniform", importance="true")
METHODS = (
    Method("uniform merges", "none", "uniform"),
    Method("random", "random"),
    Method("nsga2", "nsga2"),
    Method("moead-cmaes", "moead-cmaes"),
    Method("bambo", "bambo", batch=True, granularity="blocks", lengthscales="default"),
    _SIP,
    _AP,
    _OURS,
)
ABLATIONS = (
    replace(_SIP, label="sip-bmm, importance as initial value", lengthscales="initial"),
    replace(_SIP, label="sip-bmm, permuted importance", importance="permuted"),
    replace(_SIP, label="sip-bmm, no importance", importance="none"),
    replace(_SIP, label="sip-bmm, no importance, BoTorch's prior", lengthscales="default"),
    replace(_AP, label="ap-bmm, no re-ranking", rerank=None),
    replace(_AP, label="ap-bmm, no re-ranking, uniform start", rerank=None, start="uniform"),
    replace(_OURS, label="mergefront, 6 blocks", granularity="blocks"),
    replace(_OURS, label="mergefront, one weight", granularity="uniform"),
)
CLOCKS = tuple(
    replace(method, label=label, batch=batch, n_workers=n_workers)
    for n_workers in (4, 16)
    for label, method in (
        ("ap-bmm, no re-ranking", replace(_AP, rerank=None)),
        ("mergefront", _OURS),
    )
    for batch in (False, True)
)


@dataclass(frozen=True)
class Run:
    """What a search did, in the order of claims.

    Args:
        method: Of the search.
        problem: Name.
        params: Weights of every layer.
        values: As measured.
        errors: Standard errors of the values.
        ends: Simulated seconds of the ends.
        utilisation: See `Usage`.
        overall: See `Usage`.
    """

    method: Method
    problem: str
    params: list[list[float]]
    values: list[list[float]]
    errors: list[list[float]]
    ends: list[float]
    utilisation: float
    overall: float

    def truths(self) -> np.ndarray:
        """Return the noise-free values, `n x 2`-dim."""
        X = torch.tensor(self.params, dtype=torch.double)
        with torch.no_grad():
            return np.asarray(make_problem(self.problem).truth(X).numpy())

    def regret(self, seconds: float = float("inf")) -> float:
        """Return the share of the best hypervolume that is missing at a moment."""
        problem = make_problem(self.problem)
        seen = self.truths()[np.array(self.ends) <= seconds]
        found = hypervolume(seen, problem.reference) if len(seen) else 0.0
        return 1.0 - found / problem.best_hypervolume

    def selection(self) -> float:
        """Return the selection regret of who reads the denoised front."""
        problem = make_problem(self.problem)
        study = optuna.create_study(directions=["maximize", "maximize"])
        for x, y, e in zip(self.params, self.values, self.errors, strict=True):
            study.add_trial(_trial(problem.names, x, TrialState.COMPLETE, y, e))
        return selection_regret(problem, self.truths(), denoise(study).means.numpy())


def main() -> None:
    """Run what is missing, then print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/methods/problems"))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=["synthetic"])
    parser.add_argument("--clock-seeds", type=int, default=8, help="of our sampler's clocks")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    problems = [name for group in arguments.groups for name in GROUPS[group]]
    clocks = [m for method in CLOCKS for m in _seeds(method, arguments.clock_seeds)]
    tasks = list(dict.fromkeys(product((*METHODS, *clocks, *ABLATIONS), problems)))
    with ProcessPoolExecutor(arguments.processes, initializer=_quiet) as pool:
        runs = list(pool.map(partial(_load_or_run, arguments.out), tasks))
        scored = list(pool.map(_scores, runs))
    found = {
        (run.method, run.problem): (run, *score) for run, score in zip(runs, scored, strict=True)
    }
    for title, methods in (("Methods", METHODS), ("Ablations", ABLATIONS)):
        print(f"\n**{title}** ({len(problems)} problems a row)\n")
        print("| method | hypervolume regret | selection regret | hours | utilisation |")
        print("|---|---|---|---|---|")
        for method in methods:
            _print_row(method.label, [found[method, name] for name in problems])
    seeds = {method: _seeds(method, arguments.clock_seeds) for method in CLOCKS}
    _print_clocks(
        [[found[m, name][0] for m in seeds[method] for name in problems] for method in CLOCKS]
    )


def _seeds(method: Method, n: int) -> list[Method]:
    """Return the same search with several seeds; BMMSampler takes too long for more than one."""
    n = n if method.sampler == "mergefront" else 1
    return [replace(method, seed=seed) for seed in range(n)]


def _quiet() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def _scores(run: Run) -> tuple[float, float]:
    return run.regret(), run.selection()


def _print_row(label: str, found: Sequence[tuple[Run, float, float]]) -> None:
    runs, regrets, selections = zip(*found, strict=True)
    hours = _mean([max(run.ends) / 3600 for run in runs], 2)
    busy = _mean([100 * run.utilisation for run in runs], 1)
    print(f"| {label} | {_mean(regrets)} | {_mean(selections)} | {hours} | {busy} % |", flush=True)


def _print_clocks(rows: Sequence[Sequence[Run]]) -> None:
    """Print pairs of asynchronous and synchronous searches with the same surrogate."""
    print("\n**Asynchronous beside synchronous**, the same surrogate and evaluation times\n")
    print("| surrogate | workers | runs | hours: asynchronous, synchronous | ratio | ", end="")
    print("utilisation | regret at the end | difference (paired) | ratios at equal regret |")
    print("|---|---|---|---|---|---|---|---|---|")
    for free, batches in zip(rows[::2], rows[1::2], strict=True):
        pair = (free, batches)
        curves = [[_curve(run) for run in runs] for runs in pair]
        ends = [[curve[-1][1] for curve in column] for column in curves]
        hours = [fmean(max(run.ends) for run in runs) / 3600 for runs in pair]
        busy = [_mean([100 * run.utilisation for run in runs], 1) for runs in pair]
        cells = [
            free[0].method.label,
            str(free[0].method.n_workers),
            str(len(free)),
            f"{hours[0]:.2f}, {hours[1]:.2f}",
            f"{hours[1] / hours[0]:.2f}",
            f"{busy[0]} %, {busy[1]} %",
            f"{_mean(ends[0])}, {_mean(ends[1])}",
            _mean([a - b for a, b in zip(*ends, strict=True)]),
            ", ".join(map(str, time_ratios(*curves))),
        ]
        print("| " + " | ".join(cells) + " |")


def _curve(run: Run) -> list[tuple[float, float]]:
    """Return the regret after the end of each evaluation."""
    return [(end, run.regret(end)) for end in sorted(run.ends)]


def _load_or_run(folder: Path, task: tuple[Method, str]) -> Run:
    method, name = task
    parts = asdict(replace(method, label=""))
    if not method.seed:
        del parts["seed"]
    key = "_".join(str(part) for part in parts.values())
    path = folder / f"{name.replace('/', '-')}_{key.replace(' ', '')}.json"
    if not path.exists():
        content = asdict(_search(method, make_problem(name)))
        partial_path = path.with_suffix(".part")
        partial_path.write_text(json.dumps(content | {"problem": name}))
        partial_path.rename(path)
    content = json.loads(path.read_text())
    return Run(**(content | {"method": method}))


def _search(method: Method, problem: Problem) -> Run:
    groups = _groups(method, problem)
    names = list(dict.fromkeys(groups))
    space = dict.fromkeys(names, FloatDistribution(0.0, 1.0))
    sampler = _make_sampler(method, problem, space, groups)
    study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
    rng = np.random.default_rng([29, method.seed])

    def evaluate(trial: FrozenTrial) -> Evaluated:
        x = np.array([trial.params[group] for group in groups])
        measured = problem.measure(x, rng)
        seconds = _seconds(method.seed, len(study.get_trials(deepcopy=False)))
        attributes = {"standard_errors": measured.errors.tolist(), "x": x.tolist()}
        return Evaluated(measured.values.tolist(), attributes, seconds)

    queue = [_trial(names, x, TrialState.WAITING) for x in _first(method, len(names))]
    batch = method.n_workers if method.batch else None
    workers = (method.n_workers, batch)
    simulation = Simulation(study, space, evaluate, *workers, queue, SUGGEST_SECONDS)
    trials = simulation.run(BUDGET)
    used = usage(trials, method.n_workers)
    return Run(
        method,
        "",
        [trial.user_attrs["x"] for trial in trials],
        [list(trial.values) for trial in trials],
        [trial.user_attrs["standard_errors"] for trial in trials],
        [trial.user_attrs[SPAN][1] for trial in trials],
        used.utilisation,
        used.overall,
    )


def _seconds(seed: int, number: int) -> float:
    """Return how long an evaluation takes: the same in every search, by the trial's number."""
    sigma = sqrt(np.log1p(VARIATION**2))
    rng = np.random.default_rng([31, number, seed])
    return float(rng.lognormal(np.log(MEAN_SECONDS) - sigma**2 / 2, sigma))


def _groups(method: Method, problem: Problem) -> list[str]:
    """Return for every layer the parameter that holds its weight."""
    if method.granularity == "layer":
        return problem.names
    if method.granularity == "uniform":
        return ["uniform"] * problem.dim
    starts = (*find_blocks(problem.importance.tolist(), N_BLOCKS), problem.dim)
    sizes = np.diff(starts)
    return [f"block_{index:03d}" for index, size in enumerate(sizes) for _ in range(size)]


def _first(method: Method, dim: int) -> list[list[float]]:
    if method.sampler == "none":
        return [[level] * dim for level in uniform_levels(BUDGET)]
    if method.start == "uniform":
        return [[level] * dim for level in uniform_levels(N_START)]
    points = SobolEngine(dim, scramble=True, seed=11).draw(N_START, dtype=torch.double)
    return [[0.0] * dim, [1.0] * dim, *points.tolist()]


def _make_sampler(
    method: Method, problem: Problem, space: dict[str, FloatDistribution], groups: list[str]
) -> optuna.samplers.BaseSampler:
    importance = _importance(method, problem, groups)
    if method.sampler == "mergefront":
        return SIPSampler(importance=importance, seed=method.seed, search_space=space)
    if method.sampler == "moead-cmaes":
        return MoeadCmaesSampler(seed=0, search_space=space)
    if method.sampler == "nsga2":
        return PerTrialSampler(
            lambda seed: optuna.samplers.NSGAIISampler(population_size=8, seed=seed), 0
        )
    if method.sampler in ("random", "none"):
        return PerTrialSampler(lambda seed: optuna.samplers.RandomSampler(seed=seed), 0)
    settings = BMMSettings(
        method.lengthscales,  # type: ignore[arg-type]
        "qehvi" if method.sampler == "bambo" else "qlognehvi",
        None if method.rerank is None else Rerank(*method.rerank),
    )
    return BMMSampler(settings, importance=importance, seed=0, search_space=space)


def _importance(method: Method, problem: Problem, groups: list[str]) -> dict[str, float] | None:
    if method.importance == "none":
        return None
    values = problem.importance
    if method.importance == "permuted":
        values = np.random.default_rng(23).permutation(values)
    rows: dict[str, list[float]] = {}
    for group, value in zip(groups, values.tolist(), strict=True):
        rows.setdefault(group, []).append(value)
    return {group: fmean(members) for group, members in rows.items()}


def _trial(
    names: Sequence[str],
    x: Iterable[float],
    state: TrialState,
    values: list[float] | None = None,
    errors: list[float] | None = None,
) -> FrozenTrial:
    return create_trial(
        state=state,
        values=values,
        params=dict(zip(names, x, strict=True)),
        distributions=dict.fromkeys(names, FloatDistribution(0.0, 1.0)),
        user_attrs={} if errors is None else {"standard_errors": errors},
    )


def _mean(values: Sequence[float], digits: int = 3) -> str:
    error = stdev(values) / sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{fmean(values):.{digits}f} ± {error:.{digits}f}"


if __name__ == "__main__":
    main()
