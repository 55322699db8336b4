"""What the surrogate believes about the trials that were measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial
from torch import Tensor

from ._constraints import LIKELY, fit_feasibility
from ._gp import Observations, Trust, fit_surrogate
from ._knowledge import recall
from ._search_space import MEASURED, UnitCube, finite_trials, signs, standard_errors


@dataclass(frozen=True)
class Denoised:
    """Posterior of the noise-free values at the trials' own points.

    Args:
        trials: COMPLETE trials with finite values, and PRUNED ones with standard errors, too.
        means: An `n x m`-dim tensor, in the study's own directions.
        deviations: An `n x m`-dim tensor: posterior standard deviations.
        relevance: For every objective, parameter -> inverse lengthscale in the unit cube.
        feasible: An `n`-dim tensor: whether each trial is believed to keep to its constraints.
    """

    trials: list[FrozenTrial]
    means: Tensor
    deviations: Tensor
    relevance: list[dict[str, float]]
    feasible: Tensor


def denoise(
    study: Study,
    importance: Mapping[str, float] | None = None,
    trust: Trust | None = None,
) -> Denoised:
    """Fit the sampler's surrogate to a whole study and read it off at the trials.

    Works on any Optuna study; trials without `standard_errors` get one inferred noise level.
    Where trials share no parameter, the measured values are returned as they are.

    Args:
        study: With one objective or more.
        importance: Parameter name -> importance in [0, 1]. Defaults to None: what the study's
            `SIPSampler` was told, if it has one.
        trust: See `SIPSampler`. Defaults to None: the study's, or else "learned".
    """
    told, told_trust = recall(study)
    importance, trust = importance or told, told_trust if trust is None else trust
    trials = finite_trials(study.get_trials(deepcopy=False, states=MEASURED))
    space = _shared_space(study, trials)
    flips = signs(study.directions)
    values = torch.tensor([t.values for t in trials], dtype=torch.double).reshape(-1, len(flips))
    if not space or not trials:
        kept = torch.tensor([_keeps(trial) for trial in trials], dtype=torch.bool)
        return Denoised(trials, values, torch.zeros_like(values), [{} for _ in flips], kept)
    cube = UnitCube(space)
    X = cube.encode([trial.params for trial in trials])
    observations = Observations(
        X,
        values * flips,
        standard_errors(trials),
        importance_tensor(cube, importance),
        cube.jumps,
    )
    surrogate = fit_surrogate(observations, trust)
    means, deviations = surrogate.posterior(X)
    relevance = [
        dict(zip(cube.column_names, row, strict=True)) for row in surrogate.relevance().tolist()
    ]
    feasible = fit_feasibility(trials, observations).probability(X) >= LIKELY
    return Denoised(trials, means * flips, deviations, relevance, feasible)


def _keeps(trial: FrozenTrial) -> bool:
    return all(violation <= 0 for violation in trial.constraints.values())


def _shared_space(study: Study, trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return the parameters that all trials have; a name's widest distribution counts."""
    space = IntersectionSearchSpace().calculate(study)
    names = set.intersection(*(set(t.params) for t in trials)) if trials else set()
    for name in sorted(names - space.keys()):
        space[name] = trials[-1].distributions[name]
    return {name: d for name, d in sorted(space.items()) if not d.single()}


def importance_tensor(cube: UnitCube, importance: Mapping[str, float] | None) -> Tensor | None:
    """Return a `d`-dim tensor in the cube's column order; unnamed parameters get the mean."""
    if not importance:
        return None
    average = sum(importance.values()) / len(importance)
    row = [importance.get(name, average) for name in cube.column_names]
    return torch.tensor(row, dtype=torch.double)
