"""A trial that is proposed in memory, to be published as a whole.

Also one that a user asks for in part: `study.enqueue_trial({"layer_000": 0.4})`.
"""

import copy
import datetime
from collections.abc import Container, Mapping
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from ...errors import StudyError
from ...samplers import FIXED, fits, given_params
from ..spec.base import near_hint

# No database gives a trial this identifier.
_DRAFT_ID = -1


class _DraftStorage:
    """The study's storage, with one new trial that exists here alone.

    The others are those of one moment, so that all a sampler reads belongs together. What is not
    named here is the real storage's.
    """

    def __init__(self, storage: BaseStorage, trials: list[FrozenTrial]) -> None:
        self._storage, self._trials = storage, trials
        self.draft = FrozenTrial(
            number=len(self._trials),
            trial_id=_DRAFT_ID,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return _DRAFT_ID

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        chosen = [t for t in self._trials if states is None or t.state in states]
        return copy.deepcopy(chosen) if deepcopy else chosen

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.draft if trial_id == _DRAFT_ID else self._storage.get_trial(trial_id)

    def get_trial_system_attrs(self, trial_id: int) -> dict[str, Any]:
        return self.get_trial(trial_id).system_attrs  # samplers read there what is wished for

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        return False  # the queue is not the draft's: `ask` finds nothing in it

    def set_trial_param(
        self, trial_id: int, name: str, internal: float, distribution: BaseDistribution
    ) -> None:
        self.draft.params[name] = distribution.to_external_repr(internal)
        self.draft.distributions[name] = distribution

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.draft.user_attrs[key] = value

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.draft.system_attrs[key] = value


def propose(
    study: optuna.Study,
    space: Mapping[str, BaseDistribution],
    trials: list[FrozenTrial],
    fixed: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """Let the study's sampler propose a trial; write nothing of it.

    Args:
        study: With the sampler.
        space: Of the parameters.
        trials: All of the study, in the order of their numbers.
        fixed: Values that the sampler has no say in. Defaults to None: it chooses all.

    Returns:
        A running trial with all its parameters and what the sampler noted, without a number or
        identifier that would last.
    """
    storage = _DraftStorage(study._storage, trials)
    if fixed:
        storage.draft.system_attrs[FIXED] = dict(fixed)
    scratch = optuna.Study(study.study_name, cast(BaseStorage, storage), study.sampler)
    scratch.ask(dict(space))
    return storage.draft


def completed(
    trial: FrozenTrial,
    study: optuna.Study,
    space: Mapping[str, BaseDistribution],
    trials: list[FrozenTrial],
) -> FrozenTrial | None:
    """Return a queued trial with all its parameters; what it leaves open, the sampler chooses.

    Args:
        trial: Queued.
        study: With the sampler.
        space: Of the study's parameters.
        trials: All of the study, in the order of their numbers.

    Returns:
        None for a trial that has them all.

    Raises:
        StudyError: If it names what the study does not search, or what no operator does with the
            experts that it names or gives weights.
    """
    fixed = given_params(trial)
    whole = space.keys() <= trial.params.keys()
    for name, value in fixed.items() if not whole else ():
        _check_wish(name, value, space)
    arms = getattr(study.sampler, "arms", None)
    if arms is not None and (reason := arms.refusal(fixed)) is not None:
        raise StudyError(f"The queued trial cannot be merged: {reason}")
    if whole:
        return None
    return propose(study, space, trials, fixed)


def _check_wish(name: str, value: Any, space: Mapping[str, BaseDistribution]) -> None:
    if name not in space:
        hint = near_hint(name, list(space))
        raise StudyError(f"The queued trial sets {name!r}, which this study does not search{hint}")
    if not fits(value, space[name]):
        raise StudyError(
            f"The queued trial sets {name} to {value!r}, which must be {_allowed(space[name])}."
        )


def _allowed(values: BaseDistribution) -> str:
    if isinstance(values, CategoricalDistribution):
        return f"one of {', '.join(map(repr, values.choices))}"
    if isinstance(values, FloatDistribution):
        return f"a number from {values.low:g} to {values.high:g}"
    return f"within {values}"
