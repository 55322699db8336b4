"""Who works on which trial, and what becomes of the trials of the dead.

All of it happens under the study's lock, so that the budget is exact with any number of workers
and a suggestion sees every trial in flight.
"""

from enum import Enum
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

# Attempts at one candidate after its worker died; a point that kills every worker must end.
MAX_RETRIES = 2

_RETRIES = "retry_history"
_FIRST = "failed_trial"
_CLONE_OF = "mergefront:clone_of"


class Outcome(Enum):
    """Why a claim gave no trial."""

    WAIT = "all that is left is being evaluated by others"
    DONE = "the budget is complete"


class Workers:
    """Who is alive: every worker holds a lock on a file of its own until it exits.

    The operating system releases the lock of a process that is killed, so nobody has to time
    out, and a worker that is merely slow is never taken for dead.

    Args:
        directory: Holds the lock files; on this machine.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def register(self, name: str) -> FileLock:
        """Return the held lock of a new worker."""
        lock = FileLock(self._directory / f"{name}.lock")
        lock.acquire(timeout=0)
        return lock

    def is_alive(self, name: str) -> bool:
        """Whether the worker of this name still runs."""
        path = self._directory / f"{name}.lock"
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                path.unlink()
        except Timeout:
            return True
        return False


def claim(
    study: optuna.Study, budget: int, space: dict[str, BaseDistribution], worker: dict[str, Any]
) -> optuna.Trial | Outcome:
    """Take the next trial, queued ones first; call it under the study's lock.

    Args:
        study: With the sampler that proposes new candidates.
        budget: COMPLETE trials at the end.
        space: The parameters of a new candidate.
        worker: User attributes that say who evaluates it.
    """
    trials = study.get_trials(deepcopy=False)
    count = {state: sum(t.state == state for t in trials) for state in TrialState}
    if count[TrialState.COMPLETE] >= budget:
        return Outcome.DONE
    in_flight = count[TrialState.RUNNING] + count[TrialState.WAITING]
    if not count[TrialState.WAITING] and count[TrialState.COMPLETE] + in_flight >= budget:
        return Outcome.WAIT
    trial = study.ask(space)
    for key, value in worker.items():
        trial.set_user_attr(key, value)
    if "phase" not in trial.user_attrs:
        trial.set_user_attr("phase", "search")
    return trial


def reclaim(study: optuna.Study, workers: Workers) -> list[int]:
    """Queue again what dead workers were evaluating; call it under the study's lock.

    Returns:
        The numbers of the trials that were taken from the dead.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    # Claims happen under the lock too: a trial without a worker's name was cut off in its claim.
    dead = [t for t in running if not workers.is_alive(t.user_attrs.get("worker", ""))]
    for trial in dead:
        requeue(study, trial, "its worker died", retry=True)
    return [trial.number for trial in dead]


def requeue(study: optuna.Study, trial: FrozenTrial, reason: str, retry: bool) -> None:
    """End a trial as FAIL and queue its candidate again, as a whole.

    A candidate with some of its parameters only is not queued: the rest would be proposed anew,
    and the mixture is a point that nobody proposed. What was told of the attempt (constraints,
    the sampler's notes) stays with it.

    Args:
        study: Of the trial.
        trial: Running.
        reason: Stored as the attribute `failure`.
        retry: Whether the attempt counts against `MAX_RETRIES`.
    """
    history = trial.system_attrs.get(_RETRIES, [])
    complete = _has_all_params(study, trial)
    again = complete and (not retry or len(history) < MAX_RETRIES)
    suffix = (
        "" if again else (f" {MAX_RETRIES + 1} times" if complete else " while it was proposed")
    )
    study._storage.set_trial_user_attr(trial._trial_id, "failure", reason + suffix)
    # The clone first: a process killed in between must not lose the candidate, a parent perhaps.
    # Whoever reclaims the trial then finds the clone, and does not make a second one.
    if again and not _is_requeued(study, trial):
        study.add_trial(_clone(trial, [*history, trial.number] if retry else history))
    study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def _is_requeued(study: optuna.Study, trial: FrozenTrial) -> bool:
    trials = study.get_trials(deepcopy=False)
    return any(other.system_attrs.get(_CLONE_OF) == trial.number for other in trials)


def _clone(trial: FrozenTrial, history: list[int]) -> FrozenTrial:
    kept = {k: v for k, v in trial.user_attrs.items() if k in ("phase", "label")}
    first = trial.system_attrs.get(_FIRST, trial.number)
    return create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=kept,
        # The names that Optuna's own helpers read (`RetryHeartbeatStaleTrialCallback`).
        system_attrs={_FIRST: first, _RETRIES: history, _CLONE_OF: trial.number},
    )


def _has_all_params(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Whether a trial has as many parameters as the fullest trial of the study."""
    trials = study.get_trials(deepcopy=False)
    return len(trial.params) == max(len(other.params) for other in trials)
