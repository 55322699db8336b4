"""Any sampler, on a study whose choices fix some of the other parameters."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from ._trials.arms import Arms
from ._trials.measurements import MEASURED


class ArmSampler(BaseSampler):
    """Keeps another sampler's proposals to the arms that exist; see `SIPSampler`.

    A proposal whose choices belong to no arm gets those of an arm that shares most of them, and
    what an arm fixes has its value. A trial that was queued with some of its parameters gets an
    arm that allows them.

    Args:
        sampler: Proposes.
        arms: What each arm fixes: parameter -> value. Objectives suggest choices first.

    Raises:
        ValueError: As `SIPSampler` does.
    """

    def __init__(self, sampler: BaseSampler, arms: Sequence[Mapping[str, Any]]) -> None:
        self._sampler, self._arms = sampler, Arms(arms)

    @property
    def arms(self) -> Arms:
        """The arms."""
        return self._arms

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Ask the sampler."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the sampler's proposal, as one of an arm that allows what the trial has.

        Raises:
            ValueError: If no arm does, or an arm fixes what its parameter cannot be.
        """
        self._arms.check(search_space)
        self._arms.check_trials(study.get_trials(deepcopy=False, states=MEASURED))
        params = self._sampler.sample_relative(study, trial, search_space)
        if not params:
            return params
        for name in self._arms.names:  # a sampler may leave some open
            if name not in params and name in search_space:
                params[name] = self._sampler.sample_independent(
                    study, trial, name, search_space[name]
                )
        return self._arms.proposal(trial, params, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return what the trial's arm fixes, or ask the sampler.

        Raises:
            ValueError: As `sample_relative` does.
        """
        ask = partial(self._sampler.sample_independent, study)
        return self._arms.alone(trial, param_name, param_distribution, ask)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Tell the sampler."""
        self._sampler.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tell the sampler."""
        self._sampler.after_trial(study, trial, state, values)
