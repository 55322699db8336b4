"""SIPSampler: Bayesian optimization of merge weights with a structural importance prior."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from botorch.acquisition import AcquisitionFunction
from botorch.sampling import SobolQMCNormalSampler
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from torch import Tensor

from ._acqf import (
    AcquisitionBudget,
    Choices,
    KnowledgeGradient,
    Scale,
    best_of,
    climb,
    climb_arms,
    front_span,
    infer_reference_point,
    make_acquisition,
    preference_grid,
    raw_points,
    rounded,
    worth_knowing,
)
from ._constraints import Weighted, fit_feasibility
from ._cube_sampler import CubeSampler, Startup
from ._gp import Observations, Surrogate, Trust, fit_surrogate
from ._transfer import Source, check, hints_of, keep
from ._trials.arms import Arms
from ._trials.knowledge import check_point, check_told, last_parameters, remember
from ._trials.measurements import MEASURED, measurements, warn_of_unknown
from ._trials.pending import tell_gain
from ._trials.search_space import UnitCube, signs
from .denoise import importance_tensor

# Every step of the ascent costs the square of the points that the surrogate knows.
_MAX_POINTS = 600
# They are chosen by what so many trials tell, evenly spaced over a longer history.
_MOST_LOOKED_AT = 1000
# qLogNEHVI samples the whole front, not one measurement.
_SAMPLES_OF_A_FRONT = 4
Acquisition = Literal["knowledge-gradient", "qlognehvi"]


class SIPSampler(CubeSampler):
    """Proposes what to evaluate next, knowing the noise, the running trials and the layers.

    The surrogate is one Gaussian process per objective on the unit cube over the parameters'
    bounds, with the trials' own standard errors as known noise, and lengthscale priors shifted
    by importance (SIP-BMM, arXiv 2512.09972; here a prior with a learned trust, not an initial
    value). Parameters whose names differ in their first number alone are taken for layers: the
    surrogate learns what jumps between neighbouring ones cost.

    The next point is the measurement that most raises the utility, over a grid of preferences,
    of the trial that a user would pick (a knowledge gradient on the Chebyshev utility, see
    `_acqf/knowledge_gradient.py`), or maximizes qLogNEHVI (qLogNEI for one objective). Both know
    the running and queued trials of every worker; ask several times for a batch.

    A suggestion depends on `seed`, the trial's number and the study's history alone: restarted
    or parallel workers with one seed neither repeat points nor need to share state.

    Example::

        sampler = SIPSampler(importance={"layer_000": 0.1, "layer_001": 0.9}, seed=0)
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)

    Trials with constraints (`trial.set_constraint`) teach it where they are kept: it proposes
    points by their worth times the probability that they keep to all.

    A trial's standard errors are read from `trial.user_attrs["standard_errors"]`, a list
    aligned with its values. What is no finite number from 0 counts as missing: the largest known
    error of that objective takes its place, or, if most are missing, one noise level is inferred.
    A PRUNED trial without values but with constraints tells of constraints alone.

    A PRUNED trial with standard errors is a measurement like any other: one that was stopped
    early. `trial.user_attrs["n_questions"]` says how many questions a measurement asked.

    Where trials carry `answers` to different questions, their values are equated first; see
    `_trials/equating.py`.

    Args:
        importance: Parameter name -> importance in [0, 1], larger matters more. Parameters not
            named get the mean. Defaults to None: no prior knowledge.
        reference_point: One value per objective, in its own direction; points that do not beat
            it in all objectives are worth nothing. Defaults to None: inferred from the
            denoised front at every suggestion.
        n_startup_trials: Trials before the surrogate is used. Defaults to 8.
        startup: "uniform" sets all weights to one level, a different one in each trial, the
            parents (all 0, all 1) first; "sobol" fills the cube. Defaults to "uniform", which
            starts from where uniform merging would end.
        seed: Defaults to None: drawn from the operating system.
        trust: How much to believe `importance`: 0 not at all, 1 fully, or "learned" from the
            data for each objective (any number from 0). Defaults to "learned".
        search_space: The parameters to model together. Defaults to None: those that all
            completed trials share.
        budget: What one suggestion may cost. Defaults to None: `AcquisitionBudget()`.
        acquisition: "knowledge-gradient" or "qlognehvi". Defaults to "knowledge-gradient".
        arms: Where choices fix other parameters: what each arm fixes, parameter -> value. What
            all of them fix are the choices, the rest has no effect under the arm. One surrogate
            learns from all arms; proposals are the best of all. Defaults to None: every
            combination of choices is possible, and all parameters have their effect. A trial
            that was queued with some of its parameters gets an arm that allows them.
        same: Of arms: pairs of what points have in common that are all one model, and the
            parameters that stand for them. `({"x": 0.0}, {"operator": "a", "x": 0.0})`: at x 0 all
            operators give the base. The surrogate takes them for one point, and that alone is
            proposed. Defaults to (): no two are.
        repeats: Of arms: whether another measurement of a point tells anything new. If not, what
            was measured or is in flight is not proposed. Defaults to True.
        warm_start: Earlier studies that share an objective: its metric name (or its place, where
            one of the studies names none) and its direction. What they found is what this one
            expects, with a reliance that is learned for each objective; see `_gp/process.Kernel`.
            Layers are matched by relative depth, so that they may be more or fewer. Defaults to
            (): none.

    Raises:
        ValueError: If an option is out of its range. While a study runs: if an arm, or a pair of
            `same`, fixes what is no parameter, or a value that its parameter cannot have, or if no
            arm allows what a trial was queued with; if a study of `warm_start` shares no
            objective.
    """

    def __init__(  # noqa: PLR0913 - an Optuna sampler's options are its constructor's keywords
        self,
        *,
        importance: Mapping[str, float] | None = None,
        reference_point: Sequence[float] | None = None,
        n_startup_trials: int = 8,
        startup: Startup = "uniform",
        seed: int | None = None,
        trust: Trust = "learned",
        search_space: Mapping[str, BaseDistribution] | None = None,
        budget: AcquisitionBudget | None = None,
        acquisition: Acquisition = "knowledge-gradient",
        arms: Sequence[Mapping[str, Any]] | None = None,
        same: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
        repeats: bool = True,
        warm_start: Sequence[Study] = (),
    ) -> None:
        super().__init__(n_startup_trials, startup, seed, search_space)
        if arms is None and same:
            raise ValueError(
                f"`same` says which points of several arms are one, but got {len(same)} pair(s) "
                "and no arms; give `arms`, too, or leave `same` out."
            )
        self._arms = None if arms is None else Arms(arms, same)
        self._repeats = repeats
        if self._arms is not None and self._search_space is not None:
            self._arms.check(self._search_space)
            self._arms.check_names(self._search_space)
        check_told(importance, trust)
        check_point("reference_point", reference_point)
        _check_acquisition(acquisition)
        # Numbers of NumPy and others are kept as Python's: they are written down as JSON.
        told = {name: float(value) for name, value in (importance or {}).items()}
        self._importance = told or None
        self._reference_point = None if reference_point is None else list(reference_point)
        self._trust: Trust = "learned" if trust == "learned" else float(trust)
        self._budget = budget or AcquisitionBudget()
        self._acquisition = acquisition
        self._gains: dict[int, float] = {}
        self._sources = [Source.of(study) for study in warm_start]

    @property
    def arms(self) -> Arms | None:
        """The arms; None where there are none."""
        return self._arms

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return one value for every parameter of the space, and publish them as pending.

        Raises:
            ValueError: If `reference_point` does not have one value per objective, or something
                does not fit the arms, or a study of `warm_start` shares no objective.
        """
        check(study, self._sources)
        params = super().sample_relative(study, trial, search_space)
        if (gain := self._gains.pop(trial.number, None)) is not None:
            tell_gain(study, trial, gain)
        if params:
            remember(study, self._importance, self._trust)
            known = {*search_space, *(self._search_space or {}), *last_parameters(study)}
            warn_of_unknown(self._importance or (), known)
        return params

    def _model_point(
        self,
        study: Study,
        number: int,
        cube: UnitCube,
        measured: list[FrozenTrial],
        pending: list[dict[str, Any]],
        given: Mapping[str, Any],
    ) -> NDArray[np.float64]:
        observations = self._observations(study, cube, measured)
        X_pending = self._joined(cube, cube.encode(pending)) if pending else None
        among = study.get_trials(deepcopy=False, states=MEASURED)
        surrogate = fit_surrogate(observations, self._trust, most=_MOST_LOOKED_AT)
        feasibility = fit_feasibility(measured, observations, cube, among, _MOST_LOOKED_AT)
        means, likely = surrogate.means(observations.X), feasibility.likely(observations.X)
        reference = self._reference(study, means[likely])
        span = front_span(means[likely], reference)
        scale = Scale(reference, span, preference_grid(means.shape[1]))
        rows = worth_knowing(means, scale, _MAX_POINTS, likely)
        # What is believed to violate a constraint is known, but nobody will pick it.
        X, means = observations.X[rows][likely[rows]], means[rows][likely[rows]]
        surrogate = surrogate.restricted(rows)
        rng = self._rng(number, stream=1)
        acquisition = self._acquire(surrogate, X, X_pending, scale, number)
        if feasibility.margins:
            acquisition = Weighted(acquisition, feasibility, self._is_log, observations.X)
        if self._arms is None:
            raw = cube.snapped(raw_points(X, means, self._budget.n_raw, rng))
            ends = climb(acquisition, raw, self._budget, rng)
            candidate = best_of(acquisition, *ends, cube.snapped)
        else:
            choices = self._choices(cube, given, observations.X, X_pending)
            ends = climb_arms(acquisition, choices, X, surrogate.means, self._budget, rng)

            def proposed(points: Tensor) -> Tensor:  # rounded first: what is a parent then is one
                return choices.joined(cube.snapped(rounded(points)))

            candidate = best_of(acquisition, *ends, proposed, choices.known)
        if self._acquisition == "knowledge-gradient":
            with torch.no_grad():  # in percent of the utility of what is picked
                self._gains[number] = float(acquisition(candidate[None, None])) / 100
        return rounded(candidate).numpy()

    def _joined(self, cube: UnitCube, points: Tensor) -> Tensor:
        return points if self._arms is None else self._arms.joined(cube, points)

    def _choices(
        self, cube: UnitCube, given: Mapping[str, Any], X: Tensor, pending: Tensor | None
    ) -> Choices:
        assert self._arms is not None
        known = X if pending is None else torch.cat([X, pending])
        return Choices(
            self._arms.columns(cube, given),
            # What is asked for is not exchanged for its like under another arm.
            (lambda points: points) if given else partial(self._joined, cube),
            None if self._repeats else known,
            self._is_log,
        )

    @property
    def _is_log(self) -> bool:
        return self._acquisition == "qlognehvi"

    def _acquire(
        self,
        surrogate: Surrogate,
        X: Tensor,
        pending: Tensor | None,
        scale: Scale,
        number: int,
    ) -> AcquisitionFunction:
        seed, n_samples = self._torch_seed(number), self._budget.n_samples
        if self._acquisition == "qlognehvi":
            shape = torch.Size([_SAMPLES_OF_A_FRONT * n_samples])
            sampler = SobolQMCNormalSampler(shape, seed=seed)
            return make_acquisition(surrogate, X, pending, scale.reference, sampler)
        candidates = X if pending is None else torch.cat([X, pending])
        expected = surrogate.with_pending(pending)
        return KnowledgeGradient(expected, candidates, scale, n_samples, seed)

    def _observations(
        self, study: Study, cube: UnitCube, measured: list[FrozenTrial]
    ) -> Observations:
        known = measurements(measured)
        keep(study, self._sources)
        return Observations(
            self._joined(cube, cube.encode([trial.params for trial in measured])),
            known.values * signs(study.directions),
            known.errors,
            importance_tensor(cube, self._importance),
            cube.jumps,
            known.sizes,
            cube.choices,
            hints_of(study, cube),
        )

    def _reference(self, study: Study, means: Tensor) -> Tensor:
        if self._reference_point is None:
            return infer_reference_point(means)
        if len(self._reference_point) != len(study.directions):
            raise ValueError(
                f"reference_point must have one value per objective, but got "
                f"{self._reference_point} for {len(study.directions)} objective(s)."
            )
        given = torch.tensor(self._reference_point, dtype=torch.double)
        return given * signs(study.directions)


def _check_acquisition(acquisition: str) -> None:
    if acquisition not in get_args(Acquisition):
        raise ValueError(
            f"acquisition must be one of {get_args(Acquisition)}, but got {acquisition!r}."
        )
