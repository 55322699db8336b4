"""Candidates that a user asks for: `study.enqueue_trial({"layer_000": 0.4})`."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial

from ...errors import StudyError
from ...samplers import fits, given_params
from ..spec.base import near_hint
from .proposals import propose


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
