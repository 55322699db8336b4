"""What a search is worth to those who pick a model from it."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import optuna
import torch
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Standardize
from botorch.utils.multi_objective.pareto import is_non_dominated
from gpytorch.mlls import ExactMarginalLogLikelihood
from problems import Problem, hypervolume, utilities
from problems.base import PREFERENCES, Array
from rivals import N_START, known_importance
from runs import Run

from mergefront.samplers import Recommendation, denoise, recommend
from mergefront.study.budget import Limits

# What the user reads: measured values, BoTorch's default model, or our denoised ones.
Reported = Literal["observed", "botorch", "denoised"]


def hypervolume_regret(run: Run, n: int) -> float:
    """Return the share of the best hypervolume that the first `n` points miss (true values)."""
    values = run.truths()[:n].numpy()
    problem = run.problem
    return 1.0 - hypervolume(values, problem.reference) / problem.best_hypervolume


def best_choice_regret(run: Run, n: int) -> float:
    """Return the selection regret of a user who knows the true values."""
    truths = run.truths()[:n].numpy()
    return selection_regret(run.problem, truths, truths)


def reported_regret(run: Run, n: int, reported: Reported) -> float:
    """Return the selection regret of a user who reads the reported values."""
    truths = run.truths()[:n].numpy()
    return selection_regret(run.problem, truths, _report(run, n, reported))


def recommended_regret(run: Run, n: int) -> float:
    """Return the selection regret of a user who takes what is recommended, measured or not."""
    recommended, problem = recommendations(run, n), run.problem
    points = [[one.params[name] for name in problem.names] for one in recommended]
    with torch.no_grad():
        truths = problem.truth(torch.tensor(points, dtype=torch.double)).numpy()
    got = utilities(truths, problem.reference)[np.arange(len(points)), np.arange(len(points))]
    return float(np.mean((problem.best_utilities - got) / problem.best_utilities))


def recommendations(run: Run, n: int) -> list[Recommendation]:
    """Return what is recommended after the first `n` evaluations, one a preference."""
    weights = [(float(w), float(1 - w)) for w in PREFERENCES]
    reference = run.problem.reference.tolist()
    told = _told_importance(run)
    return recommend(run.study(n), weights, reference, span=[1.0, 1.0], importance=told)


def stopped_at(run: Run, gain: float) -> int:
    """Return after how many evaluations `study.stop: {gain}` would have ended a search."""
    trials = run.study(len(run.values)).get_trials(deepcopy=False)
    limits = Limits(gain=gain)
    whole = range(N_START, len(trials))
    return next((n for n in whole if limits.reason(trials[:n])), len(trials))


def selection_regret(problem: Problem, truths: Array, reported: Array) -> float:
    """Return the mean relative loss of utility over preferences.

    The user of each preference picks the point of the reported front whose reported utility is
    best, and gets its true utility.

    Args:
        problem: With its best possible utilities.
        truths: An `n x 2`-dim array of noise-free values.
        reported: An `n x 2`-dim array of the values that the user reads.
    """
    front = np.flatnonzero(is_non_dominated(torch.from_numpy(reported)).numpy())
    picks = front[utilities(reported[front], problem.reference).argmax(axis=0)]
    got = utilities(truths, problem.reference)[picks, np.arange(len(picks))]
    return float(np.mean((problem.best_utilities - got) / problem.best_utilities))


def _report(run: Run, n: int, reported: Reported) -> Array:
    if reported == "observed":
        return np.array(run.values[:n])
    if reported == "botorch":
        return _botorch_means(run, n)
    means: Array = denoise(run.study(n), _told_importance(run)).means.numpy()
    return means


def _told_importance(run: Run) -> Mapping[str, float] | None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not run.task.sampler.startswith(("mergefront", "sip")):
        return None
    return known_importance(run.problem, run.task.seed, run.task.importance)


def _botorch_means(run: Run, n: int) -> Array:
    """Return posterior means of BoTorch's default model, which infers one noise level."""
    X = torch.tensor(run.params[:n], dtype=torch.double)
    Y = torch.tensor(run.values[:n], dtype=torch.double)
    columns = []
    for j in range(2):
        model = SingleTaskGP(X, Y[:, [j]], outcome_transform=Standardize(m=1))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        with torch.no_grad():
            columns.append(model.posterior(X).mean[:, 0])
    return np.asarray(torch.stack(columns, dim=1).numpy(), dtype=np.float64)
