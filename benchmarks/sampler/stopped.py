"""What it costs to stop clearly worse candidates early, as racing does, on searches that are done.

    python benchmarks/sampler/stopped.py --out runs/sampler

Searches of our sampler on the first problems of the group `fresh` (run if they are missing). Of
the 40 candidates after the uniform merges, which always answer everything, the 20 that are
believed to be the worst answer 18 of their 70 questions. What is picked and what is recommended
then is compared with all answered.
"""

import argparse
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from problems import GROUPS, utilities
from problems.base import PREFERENCES
from problems.synthetic import N_QUESTIONS, Synthetic
from rivals import N_START, known_importance
from runs import BUDGET, Run, Task, load_or_run
from scores import selection_regret

from mergefront.samplers import denoise, recommend

N_STOPPED, N_ASKED, BELOW = 20, 18, 310


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/sampler"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| questions | searches | picked, stopped less all | recommended, stopped less all |")
    print("|---|---|---|---|")
    everything: list[tuple[float, float]] = []
    for noise in ("independent", "shared"):
        names = [name for name in GROUPS["fresh"] if f"/{noise}/" in name]
        names = [name for name in names if int(name.split("/")[2]) < BELOW]
        lost = [_lost(load_or_run(Task(name, "mergefront"), arguments.out)) for name in names]
        everything += lost
        _print(noise, lost)
    _print("both", everything)


def _print(noise: str, lost: list[tuple[float, float]]) -> None:
    cells = []
    for column in zip(*lost, strict=True):
        cells.append(f"{fmean(column):.4f} ± {stdev(column) / len(column) ** 0.5:.4f}")
    print(f"| {noise} | {len(lost)} | {' | '.join(cells)} |", flush=True)


def _lost(run: Run) -> tuple[float, float]:
    """Return how much more is lost by picking, and by taking what is recommended."""
    told = known_importance(run.problem, run.task.seed, run.task.importance)
    study = run.study(BUDGET)
    believed = utilities(denoise(study, told).means.numpy(), run.problem.reference)
    stopped = _with_stopped(run, worst(believed))
    (picked, taken), (fewer_picked, fewer_taken) = (_regrets(run, s) for s in (study, stopped))
    return fewer_picked - picked, fewer_taken - taken


def worst(believed: np.ndarray) -> set[int]:
    """Return which candidates are stopped: `N_STOPPED`, none of which is a uniform merge.

    Args:
        believed: Utilities, candidates x preferences; uniform merges first.
    """
    best = (believed - believed.max(axis=0)).max(axis=1)
    return set((N_START + best[N_START:].argsort()[:N_STOPPED]).tolist())


def _with_stopped(run: Run, stopped: set[int]) -> optuna.Study:
    rng = np.random.default_rng([run.task.seed, 5])
    study = optuna.create_study(directions=["maximize", "maximize"])
    for number, trial in enumerate(run.study(BUDGET).trials):
        trial.user_attrs = {**trial.user_attrs, "n_questions": N_QUESTIONS}
        if number in stopped:
            _stop(trial, run, np.array(run.params[number]), rng)
        study.add_trial(trial)
    return study


def _stop(trial: FrozenTrial, run: Run, x: np.ndarray, rng: np.random.Generator) -> None:
    """Turn a trial into one that answered fewer questions."""
    problem = run.problem
    assert isinstance(problem, Synthetic)
    measured = problem.measure(x, rng, range(N_ASKED))
    trial.values, trial.state = measured.values.tolist(), TrialState.PRUNED
    trial.user_attrs |= {"standard_errors": measured.errors.tolist(), "n_questions": N_ASKED}


def _regrets(run: Run, study: optuna.Study) -> tuple[float, float]:
    problem = run.problem
    told = known_importance(problem, run.task.seed, run.task.importance)
    denoised = denoise(study, told)
    whole = [t.state == TrialState.COMPLETE for t in denoised.trials]
    picked = selection_regret(problem, run.truths().numpy()[whole], denoised.means.numpy()[whole])
    weights = [(float(w), float(1 - w)) for w in PREFERENCES]
    point = problem.reference.tolist()
    found = recommend(study, weights, point, span=[1.0, 1.0], importance=told)
    points = [[one.params[name] for name in problem.names] for one in found]
    with torch.no_grad():
        truths = problem.truth(torch.tensor(points, dtype=torch.double)).numpy()
    got = utilities(truths, problem.reference).diagonal()
    return picked, float(np.mean(1 - got / problem.best_utilities))


if __name__ == "__main__":
    main()
