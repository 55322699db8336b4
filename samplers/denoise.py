"""What the surrogate believes about the trials that were measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from ._beliefs import fit_beliefs
from ._constraints import LIKELY, Feasibility
from ._gp import Observations, Surrogate, Trust
from ._threads import one_thread
from ._transfer import hints_of
from ._trials.knowledge import recall
from ._trials.measurements import MEASURED, finite_trials, measurements, warn_of_unknown
from ._trials.questions import QuestionSampling, question_sampling
from ._trials.search_space import UnitCube, signs


@dataclass(frozen=True)
class Denoised:
    """Posterior of the noise-free values at the trials' own points.

    Args:
        trials: COMPLETE trials with finite values (up to 1e100), and PRUNED ones with standard
            errors, too; without those that lack a parameter of the others.
        means: An `n x m`-dim tensor, in the study's own directions.
        deviations: An `n x m`-dim tensor: posterior standard deviations.
        relevance: For every objective, parameter -> inverse lengthscale in the unit cube; of a
            choice the largest of its values'.
        feasible: An `n`-dim tensor: whether each trial is believed to keep to its constraints.
    """

    trials: list[FrozenTrial]
    means: Tensor
    deviations: Tensor
    relevance: list[dict[str, float]]
    feasible: Tensor


@dataclass(frozen=True)
class StudyModel:
    """The sampler's surrogate of a whole study.

    Args:
        trials: Measured, all with every parameter of the cube.
        cube: Over the parameters that all trials share.
        observations: Of the trials, maximized.
        surrogate: Fitted to them.
        feasibility: Of points of the cube.
        sampling: How far values on other questions lie from those believed; None where nothing
            tells which questions were asked.
    """

    trials: list[FrozenTrial]
    cube: UnitCube
    observations: Observations
    surrogate: Surrogate
    feasibility: Feasibility
    sampling: QuestionSampling | None = None

    @cached_property
    def believed(self) -> tuple[Tensor, Tensor]:
        """Posterior means and deviations at the trials' own points, two `n x m`-dim tensors."""
        return self.surrogate.posterior(self.observations.X)

    @cached_property
    def kept(self) -> Tensor:
        """How likely each trial keeps to its constraints, `n`-dim."""
        return self.feasibility.probability(self.observations.X)

    @cached_property
    def likely(self) -> Tensor:
        """Whether each trial may be picked, `n`-dim; see `Feasibility.likely`."""
        return self.feasibility.likely(self.observations.X)


def denoise(
    study: Study,
    importance: Mapping[str, float] | None = None,
    trust: Trust | None = None,
) -> Denoised:
    """Fit the sampler's surrogate to a whole study and read it off at the trials.

    Works on any Optuna study; trials without `standard_errors` get the largest known error of an
    objective, or one inferred noise level. Where trials answered different questions (`answers`),
    their values are equated. Where they share no parameter, the measured values are returned as
    they are.

    Args:
        study: With one objective or more.
        importance: Parameter name -> importance in [0, 1]. Defaults to None: what the study's
            `SIPSampler` was told, if it has one.
        trust: See `SIPSampler`. Defaults to None: the study's, or else "learned".
    """
    model = fit_study(study, importance, trust)
    return _as_measured(study) if model is None else read_off(model, study)


def read_off(model: StudyModel, study: Study) -> Denoised:
    """Return what a model believes about its own trials.

    An objective whose errors are all 0 is known: nothing is believed of it.
    """
    means, deviations = model.believed
    known = model.observations.exact
    means = torch.where(known, model.observations.Y, means)
    deviations = deviations.masked_fill(known, 0.0)
    names = model.cube.column_names
    relevance: list[dict[str, float]] = []
    for row in model.surrogate.relevance().tolist():
        columns: dict[str, float] = {}
        for name, value in zip(names, row, strict=True):  # a choice has several columns
            columns[name] = max(value, columns.get(name, 0.0))
        relevance.append(columns)
    feasible = model.kept >= LIKELY
    return Denoised(model.trials, means * signs(study.directions), deviations, relevance, feasible)


def fit_study(
    study: Study,
    importance: Mapping[str, float] | None = None,
    trust: Trust | None = None,
    same_questions: bool = False,
) -> StudyModel | None:
    """Fit a study's surrogate; None where there is no trial, or no parameter that all share.

    Args:
        study: With one objective or more.
        importance: See `denoise`.
        trust: The same.
        same_questions: Whether trials that do not tell (`answers`) all answered the same
            questions. Defaults to False: nothing is known of them.
    """
    told, told_trust = recall(study)
    importance, trust = importance or told, told_trust if trust is None else trust
    among = study.get_trials(deepcopy=False, states=MEASURED)
    trials = finite_trials(among)
    space = _shared_space(study, trials)
    if not space:
        return None
    warn_of_unknown(importance or (), {name for trial in trials for name in trial.params})
    cube = UnitCube(space)
    trials = [trial for trial in trials if cube.holds(trial.params)]
    if not trials:
        return None
    known = measurements(trials)
    observations = Observations(
        cube.encode([trial.params for trial in trials]),
        known.values * signs(study.directions),
        known.errors,
        importance_tensor(cube, importance),
        cube.jumps,
        known.sizes,
        cube.choices,
        hints_of(study, cube),
    )
    with one_thread():
        surrogate, feasibility = fit_beliefs(trials, observations, cube, among, trust)
    sampling = question_sampling(trials, known, same_questions)
    return StudyModel(trials, cube, observations, surrogate, feasibility, sampling)


def _as_measured(study: Study) -> Denoised:
    trials = finite_trials(study.get_trials(deepcopy=False, states=MEASURED))
    n_objectives = len(study.directions)
    values = torch.tensor([t.values for t in trials], dtype=torch.double)
    values = values.reshape(-1, n_objectives)
    kept = torch.tensor([keeps_to_constraints(trial) for trial in trials], dtype=torch.bool)
    return Denoised(trials, values, torch.zeros_like(values), [{}] * n_objectives, kept)


def keeps_to_constraints(trial: FrozenTrial) -> bool:
    """Whether a trial breaks no constraint, as it was measured."""
    return all(violation <= 0 for violation in trial.constraints.values())


def _shared_space(study: Study, trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return the parameters that all COMPLETE trials have; a name's widest distribution counts.

    A trial that was stopped before it had them all takes none away.
    """
    space = IntersectionSearchSpace().calculate(study)
    whole = [t for t in trials if t.state == TrialState.COMPLETE] or trials
    names = set.intersection(*(set(t.params) for t in whole)) if whole else set()
    for name in sorted(names - space.keys()):
        space[name] = next(t for t in reversed(trials) if name in t.params).distributions[name]
    return {name: d for name, d in sorted(space.items()) if not d.single()}


def importance_tensor(cube: UnitCube, importance: Mapping[str, float] | None) -> Tensor | None:
    """Return a `d`-dim tensor in the cube's column order; unnamed parameters get the mean."""
    if not importance:
        return None
    average = sum(importance.values()) / len(importance)
    row = [importance.get(name, average) for name in cube.column_names]
    return torch.tensor(row, dtype=torch.double)
