"""How far a study is."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from ...samplers import MEASURED
from ..spec.study_spec import StudySpec
from ..storage.ledger import Ledger

# Workers whose last sign of life is older are not counted, in heartbeats.
_MISSED = 3


@dataclass(frozen=True)
class Running:
    """A trial in hand.

    Args:
        number: Of the trial.
        worker: Who evaluates it.
        seconds: Since its start.
        silence: Seconds since the worker's last sign of life.
    """

    number: int
    worker: str
    seconds: float
    silence: float


@dataclass(frozen=True)
class Status:
    """How far a study is.

    Args:
        study: Name.
        budget: Measured trials at the end.
        counts: Trials by state.
        running: Trials in hand.
        failures: Numbers of failed trials and their reasons, newest last.
        workers: How many gave a sign of life lately.
        trials_per_hour: Over the last ten measured trials or all there are, or None.
        hours_left: At this rate, or None.
        generated_tokens: By all measured trials.
    """

    study: str
    budget: int
    counts: dict[str, int]
    running: tuple[Running, ...]
    failures: tuple[tuple[int, str], ...]
    workers: int
    trials_per_hour: float | None
    hours_left: float | None
    generated_tokens: int

    @property
    def n_measured(self) -> int:
        """Return how many trials count in the budget."""
        return self.counts["complete"] + self.counts["pruned"]


def status_of(study: optuna.Study, spec: StudySpec) -> Status:
    """Return a study's status."""
    trials = study.get_trials(deepcopy=False)
    counts = {s.name.lower(): sum(t.state == s for t in trials) for s in TrialState}
    running = _running(study, trials)
    alive = [r for r in running if r.silence < _MISSED * spec.study.heartbeat_seconds]
    rate = _trials_per_hour(trials)
    left = max(0, spec.study.trials - counts["complete"] - counts["pruned"])
    return Status(
        study=study.study_name,
        budget=spec.study.trials,
        counts=counts,
        running=running,
        failures=tuple(
            (t.number, str(t.user_attrs.get("failure", "unknown")))
            for t in trials
            if t.state == TrialState.FAIL
        ),
        workers=len({r.worker for r in alive}),
        trials_per_hour=rate,
        hours_left=left / rate if rate else None,
        generated_tokens=sum(t.user_attrs.get("generated_tokens", 0) for t in trials),
    )


def _running(study: optuna.Study, trials: Sequence[FrozenTrial]) -> tuple[Running, ...]:
    ledger, now = Ledger(study), datetime.datetime.now()
    with ledger.engine.begin() as connection:
        silences = ledger.silences(connection)
    return tuple(
        Running(
            trial.number,
            str(trial.user_attrs.get("worker", "unknown")),
            (now - (trial.datetime_start or now)).total_seconds(),
            silences[trial._trial_id],
        )
        for trial in trials
        if trial.state == TrialState.RUNNING and trial._trial_id in silences
    )


def _trials_per_hour(trials: Sequence[FrozenTrial]) -> float | None:
    """Return the rate over the newest trials: workers come and go."""
    ends = sorted(t.datetime_complete for t in trials if t.state in MEASURED)  # type: ignore[type-var]
    newest = ends[-11:]
    if len(newest) < 2:
        return None
    seconds = (newest[-1] - newest[0]).total_seconds()  # type: ignore[operator]
    return 3600.0 * (len(newest) - 1) / seconds if seconds > 0 else None
