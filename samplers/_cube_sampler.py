"""What samplers over the unit cube share: start-up trials, seeds, and what others measure."""

import warnings
import zlib
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from botorch.utils.sampling import manual_seed
from numpy.typing import NDArray
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState
from torch import double
from torch.quasirandom import SobolEngine

from ._threads import one_thread
from ._trials.arms import Arms
from ._trials.measurements import MEASURED, finite_trials, is_measured
from ._trials.pending import given_params, pending_params, publish
from ._trials.search_space import UnitCube, uniform_levels

Startup = Literal["uniform", "sobol"]
_STATES = (*MEASURED, TrialState.RUNNING, TrialState.WAITING)


class CubeSampler(BaseSampler):
    """Start-up trials first, then points of a model, as a function of the study's history.

    A suggestion depends on `seed`, the trial's number and the study's history alone: restarted
    or parallel workers with one seed neither repeat points nor need to share state.

    Args:
        n_startup_trials: Trials before the model is used.
        startup: "uniform" sets all weights to one level, a different one in each trial, the
            parents (all 0, all 1) first; "sobol" fills the cube.
        seed: Drawn from the operating system if None.
        search_space: The parameters to model together; if None, those that all completed trials
            share.

    Raises:
        ValueError: If an option is out of its range.
    """

    def __init__(
        self,
        n_startup_trials: int,
        startup: Startup,
        seed: int | None,
        search_space: Mapping[str, BaseDistribution] | None,
    ) -> None:
        if n_startup_trials < 0:
            raise ValueError(f"`n_startup_trials >= 0` must hold, but got {n_startup_trials}.")
        if startup not in ("uniform", "sobol"):
            raise ValueError(f"startup must be 'uniform' or 'sobol', but got {startup!r}.")
        self._n_startup_trials = n_startup_trials
        self._levels = uniform_levels(n_startup_trials) if startup == "uniform" else None
        self._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
        self._search_space = dict(search_space) if search_space else None
        self._arms: Arms | None = None

    @abstractmethod
    def _model_point(
        self,
        study: Study,
        number: int,
        cube: UnitCube,
        measured: list[FrozenTrial],
        pending: list[dict[str, Any]],
        given: Mapping[str, Any],
    ) -> NDArray[np.float64]:
        """Return the point of trial `number`, `d`-dim in the unit cube.

        Args:
            study: For its directions.
            number: Of the trial.
            cube: Over the search space.
            measured: At least one trial, all of `finite_trials` and with every parameter.
            pending: Parameters of the trials in flight.
            given: Parameters of this trial that are not to be chosen: it was queued with them.
        """

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the given search space, or the one that completed trials share."""
        space = self._search_space or IntersectionSearchSpace().calculate(study)
        return {name: dist for name, dist in space.items() if not dist.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return one value for every parameter of the space, and publish them as pending."""
        if not search_space:
            return {}
        cube = UnitCube(search_space)
        trials = study._get_trials(deepcopy=False, states=_STATES, use_cache=False)
        if self._arms is not None:
            self._arms.check(search_space)
            if self._search_space is None:
                self._arms.check_trials(trial for trial in trials if trial.state in MEASURED)
        point = self._propose(study, trial, cube, trials)
        params = cube.decode(point)
        if self._arms is not None:
            params = self._arms.proposal(trial, params, search_space)
        publish(study, trial, params)
        return params

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return a value for one parameter: the start-up level, or a random one.

        Where there are arms, it is one that an arm allows with what the trial has already.
        """
        if self._arms is None:
            return self._alone(trial, param_name, param_distribution)
        return self._arms.alone(trial, param_name, param_distribution, self._alone)

    def _alone(
        self, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        cube = UnitCube({param_name: param_distribution})
        stream = zlib.crc32(param_name.encode())
        point = self._rng(trial.number, stream).uniform(size=cube.dim)
        level = self._startup_level(trial.number)
        if self._levels is None and trial.number < self._n_startup_trials:
            point = self._next_sobol_columns(trial, param_name, param_distribution)
        if level is not None and not cube.categorical_columns:
            point = np.full(cube.dim, level)
        return cube.decode(point)[param_name]

    def _propose(
        self, study: Study, trial: FrozenTrial, cube: UnitCube, trials: list[FrozenTrial]
    ) -> NDArray[np.float64]:
        finite = finite_trials(trials)
        measured = [trial for trial in finite if cube.holds(trial.params)]
        if trial.number < self._n_startup_trials:
            return self._startup_point(trial.number, cube)
        if finite and not measured:
            _warn_of_a_space_without_trials(cube, finite)
        if not measured or len(measured) < self._n_startup_trials - _n_failed(study):
            return self._sobol_point(trial.number, cube)
        pending = pending_params(trials, cube, trial.number)
        with one_thread(), manual_seed(self._torch_seed(trial.number)):
            return self._model_point(
                study, trial.number, cube, measured, pending, given_params(trial)
            )

    def _startup_point(self, number: int, cube: UnitCube) -> NDArray[np.float64]:
        point = self._sobol_point(number, cube)
        level = self._startup_level(number)
        if level is not None:
            numeric = np.setdiff1d(np.arange(cube.dim), cube.categorical_columns)
            point[numeric] = level
        return point

    def _startup_level(self, number: int) -> float | None:
        if self._levels is None or number >= len(self._levels):
            return None
        return self._levels[number]

    def _sobol_point(self, number: int, cube: UnitCube) -> NDArray[np.float64]:
        """Return the trial's own point of one scrambled sequence, so no counter is shared."""
        engine = SobolEngine(cube.dim, scramble=True, seed=self._seed)
        if number:
            engine.fast_forward(number)
        return np.asarray(engine.draw(1, dtype=double)[0].numpy(), dtype=np.float64)

    def _next_sobol_columns(
        self, trial: FrozenTrial, name: str, distribution: BaseDistribution
    ) -> NDArray[np.float64]:
        """Return the trial's Sobol point in the columns of one more parameter.

        The space is not known before a trial is complete; the order of suggestions is.
        """
        before = {key: d for key, d in trial.distributions.items() if key != name}
        whole = UnitCube({**before, name: distribution})
        return self._sobol_point(trial.number, whole)[-UnitCube({name: distribution}).dim :]

    def _rng(self, number: int, stream: int = 0) -> np.random.Generator:
        return np.random.default_rng([self._seed, number, stream])

    def _torch_seed(self, number: int) -> int:
        return int(self._rng(number).integers(2**31))


def _warn_of_a_space_without_trials(cube: UnitCube, finite: list[FrozenTrial]) -> None:
    missing = sorted(cube.search_space.keys() - finite[-1].params.keys())
    if missing:
        warnings.warn(
            f"No finished trial has all parameters of search_space; trial {finite[-1].number} "
            f"lacks {', '.join(map(repr, missing[:5]))}. Until one has them, points are Sobol's, "
            "not the model's: let the objective suggest them, or leave them out of search_space.",
            stacklevel=2,
        )


def _n_failed(study: Study) -> int:
    """Count failed trials: they used up start-up points without leaving a measurement."""
    states = (TrialState.FAIL, TrialState.PRUNED)
    failed = study._get_trials(deepcopy=False, states=states)
    return sum(not is_measured(trial) for trial in failed)
