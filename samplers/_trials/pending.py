"""Points that other workers are evaluating, so that nobody proposes them again.

A trial is visible as pending once all its parameters can be known: written one by one by
`suggest_float`, queued with it, or published as a whole by `publish` before the first write.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from .search_space import UnitCube

# Where `study.enqueue_trial` keeps the values that its caller wishes for.
FIXED = "fixed_params"
# What a trial was expected to gain when it was proposed, as a share of utility.
GAIN = "sip:gain"
_KEY = "sip:relative_params"


def publish(study: Study, trial: FrozenTrial, params: Mapping[str, Any]) -> None:
    """Make a suggestion visible to every worker before its parameters are written."""
    # Samplers have no public way to store their state; all of Optuna's own do the same.
    study._storage.set_trial_system_attr(trial._trial_id, _KEY, json.dumps(dict(params)))


def tell_gain(study: Study, trial: FrozenTrial, gain: float) -> None:
    """Keep with a trial what it was expected to gain, as a share of utility."""
    study._storage.set_trial_system_attr(trial._trial_id, GAIN, gain)


def pending_params(
    trials: Sequence[FrozenTrial], cube: UnitCube, number: int
) -> list[dict[str, Any]]:
    """Return the parameters of all trials in flight, other than trial `number` itself.

    A queued trial may hold anything; values that have no place in the cube are left out.
    """
    known = [
        known_params(trial)
        for trial in trials
        if trial.state in (TrialState.RUNNING, TrialState.WAITING) and trial.number != number
    ]
    return [params for params in known if cube.holds(params)]


def known_params(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters of a trial, written or not."""
    published = json.loads(trial.system_attrs.get(_KEY, "{}"))
    return {**published, **given_params(trial)}


def given_params(trial: FrozenTrial) -> dict[str, Any]:
    """Return the parameters of a trial that no sampler has a say in any more."""
    return {**trial.system_attrs.get(FIXED, {}), **trial.params}
