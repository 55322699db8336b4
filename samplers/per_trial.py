"""Optuna's own samplers, made reproducible with many workers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

# Trials that are asked for and never told would stay for ever.
_MOST_RUNNING = 256


class PerTrialSampler(BaseSampler):
    """Gives another sampler a fresh seed for every trial, from `(seed, trial.number)`.

    Optuna's samplers take one seed a process: workers, and restarts, that share a seed propose
    the same points, and workers with different seeds are not reproducible.

    Args:
        make: Seed -> sampler; called once a trial, so the sampler's state must be the study's.
        seed: Of the study.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int) -> None:
        self._make, self._seed = make, seed
        self._running: dict[tuple[str, int], BaseSampler] = {}

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Ask the trial's sampler."""
        return self._of(study, trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask the trial's sampler."""
        return self._of(study, trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Ask the trial's sampler."""
        return self._of(study, trial).sample_independent(
            study, trial, param_name, param_distribution
        )

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Tell the trial's sampler."""
        self._of(study, trial).before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tell the trial's sampler."""
        self._of(study, trial).after_trial(study, trial, state, values)
        self._running.pop((study.study_name, trial.number), None)

    def _of(self, study: Study, trial: FrozenTrial) -> BaseSampler:
        """Return the trial's sampler; trials may run side by side and end in any order.

        No lock, which could not be pickled: one thread works on one trial.
        """
        key = (study.study_name, trial.number)
        if key not in self._running:
            seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
            self._running[key] = self._make(seed)
            for oldest in list(self._running)[:-_MOST_RUNNING]:
                self._running.pop(oldest, None)
        return self._running[key]
