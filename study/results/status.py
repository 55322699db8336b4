"""How far a study is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from ...samplers import MEASURED, keeps_to_constraints, signs
from ..budget import Amount, hours_of, quote, tokens_of
from ..first_trials import is_uniform
from ..seeding import BUDGET
from ..spec.study_spec import StudySpec
from ..storage.ledger import Ledger
from .front import anchors_of, hypervolume, metric_names, reference_asked
from .recommendations import reference_of

# Trials that rates are taken over.
_RECENT = 10
# Workers whose last heartbeat is older are not counted, in heartbeats.
_MISSED = 3


@dataclass(frozen=True)
class Running:
    """A trial in hand.

    Args:
        number: Of the trial.
        worker: Who evaluates it.
        seconds: Since its start.
        silence: Seconds since the worker's last heartbeat.
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
        budget: Measured trials at the end, as last asked for; never fewer than there are.
        counts: Trials by state.
        running: Trials in hand.
        failures: Numbers of failed trials and their reasons, newest last.
        workers: Number of workers with a recent heartbeat.
        trials_per_hour: Over the last ten measured trials or all there are, or None. Pauses in
            which nobody worked do not count.
        hours_left: At this rate, or None.
        generated_tokens: By all measured trials.
        tokens_per_second: Over the same trials as `trials_per_hour`, or None.
        hypervolume: Of the values as measured, lucky ones included; for one objective the best
            value. None before the parents are measured.
        price: What the study has used and will have used at the end: `tokens`, `gpu_hours`, and
            `money` if the spec says what an hour costs. Empty before two trials are measured.
        ended: Why no further trial is begun although trials are left; None if one may be.
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
    tokens_per_second: float | None
    hypervolume: float | None
    price: dict[str, Amount] = field(default_factory=dict)
    ended: str | None = None

    @property
    def done(self) -> bool:
        """Whether no further trial will be begun."""
        return self.ended is not None or self.n_measured >= self.budget

    @property
    def n_measured(self) -> int:
        """Return how many trials count in the budget."""
        return self.counts["complete"] + self.counts["pruned"]


def status_of(study: optuna.Study, spec: StudySpec, trials_asked: int | None = None) -> Status:
    """Return a study's status.

    Args:
        study: An existing study.
        spec: Of the study.
        trials_asked: Measured trials at the end. Defaults to None: as the last `run` or `worker`
            was asked, or else the spec's.
    """
    trials = study.get_trials(deepcopy=False)
    counts = {s.name.lower(): sum(t.state == s for t in trials) for s in TrialState}
    running = _running(study, trials)
    alive = [r for r in running if r.silence < _MISSED * spec.study.heartbeat_seconds]
    recent = _recent(trials)
    seconds = busy_seconds(recent)
    rate = 3600.0 * len(recent) / seconds if seconds else None
    measured = counts["complete"] + counts["pruned"]
    asked = trials_asked or study.user_attrs.get(BUDGET, spec.study.trials)
    budget = max(measured, spec.ends.expected_trials(trials, asked))
    left = budget - measured
    return Status(
        study=study.study_name,
        budget=budget,
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
        generated_tokens=_tokens(trials),
        tokens_per_second=_tokens(recent) / seconds if seconds else None,
        hypervolume=measured_hypervolume(study, spec),
        price=price_of(trials, spec, left),
        ended=None if counts["running"] else spec.ends.reason(trials),
    )


def price_of(trials: Sequence[FrozenTrial], spec: StudySpec, n_left: int) -> dict[str, Amount]:
    """Return what a study uses; see `Status.price`.

    With racing, candidates to come are asked a share of what parents and uniform merges are.

    Args:
        trials: All of it.
        spec: Of the study.
        n_left: Trials that are not measured yet.
    """
    racing = spec.evaluation.racing
    less = 1.0 if racing is None else racing.share
    shares = [less if is_uniform(trial) else 1.0 for trial in trials]
    whole = sum(is_uniform(t) and t.state not in (*MEASURED, TrialState.FAIL) for t in trials)
    n_ahead = n_left + round(whole * (1 / less - 1))  # each of them is worth several others

    def total(costs: Sequence[float]) -> Amount | None:
        ahead = [cost * share for cost, share in zip(costs, shares, strict=True)]
        return quote(trials, n_ahead, costs, ahead)

    tokens = total([tokens_of(trial) for trial in trials])
    hours = total([hours_of(trial, spec.ends.n_devices) for trial in trials])
    if tokens is None or hours is None:
        return {}
    money = {} if spec.cost is None else {"money": hours.times(spec.cost.per_hour)}
    return {"tokens": tokens, "gpu_hours": hours, **money}


def quoted(price: Mapping[str, Amount]) -> list[tuple[str, str]]:
    """Return a price as titles and texts."""
    titles = {"tokens": "tokens at the end", "gpu_hours": "GPU hours", "money": "price"}
    digits = {"tokens": 0, "gpu_hours": 2, "money": 2}
    return [
        (
            titles[name],
            f"{amount.expected:,.{digits[name]}f} "
            f"[{amount.interval[0]:,.{digits[name]}f}, {amount.interval[1]:,.{digits[name]}f}], "
            f"{amount.spent:,.{digits[name]}f} so far",
        )
        for name, amount in price.items()
    ]


def _running(study: optuna.Study, trials: Sequence[FrozenTrial]) -> tuple[Running, ...]:
    ledger = Ledger(study)
    with ledger.engine.begin() as connection:
        in_hand = ledger.in_hand(connection)
    return tuple(
        Running(
            trial.number, str(trial.user_attrs.get("worker", "unknown")), *in_hand[trial._trial_id]
        )
        for trial in trials
        if trial.state == TrialState.RUNNING and trial._trial_id in in_hand
    )


def _tokens(trials: Sequence[FrozenTrial]) -> int:
    return sum(t.user_attrs.get("generated_tokens", 0) for t in trials)


def _recent(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the newest measured trials: workers come and go."""
    measured = [t for t in trials if t.state in MEASURED and t.datetime_start]
    return sorted(measured, key=lambda t: t.datetime_complete)[-_RECENT:]  # type: ignore[arg-type,return-value]


def busy_seconds(trials: Sequence[FrozenTrial]) -> float:
    """Return the time in which the trials were measured, proposals included, pauses excluded.

    A gap in which no trial was in hand counts as work while it is shorter than the longest
    trial: then somebody was proposing. A longer one is a pause.
    """
    spans = sorted((t.datetime_start, t.datetime_complete) for t in trials)
    total, end = 0.0, None
    longest = max(((b - a).total_seconds() for a, b in spans), default=0.0)  # type: ignore[operator]
    for start, finish in spans:
        gap = (start - end).total_seconds() if end else 0.0  # type: ignore[operator]
        total += gap if 0 < gap <= longest else 0.0
        begins = max(start, end) if end else start  # type: ignore[type-var]
        total += max(0.0, (finish - begins).total_seconds())  # type: ignore[operator]
        end = max(finish, end) if end else finish  # type: ignore[type-var]
    return total


def measured_hypervolume(study: optuna.Study, spec: StudySpec) -> float | None:
    """Return the hypervolume of the values as they were measured, cheap enough for every look.

    Lucky measurements are in it: while a study runs it says whether the search gets on. For one
    objective it is the best value itself. None before all parents are measured, and while nothing
    keeps to the constraints.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    kept = torch.tensor([keeps_to_constraints(trial) for trial in trials], dtype=torch.bool)
    n_parents = len(anchors_of(trials, metric_names(study, spec)))
    if n_parents < len(spec.models.experts) + 1 or not bool(kept.any()):
        return None
    values = torch.tensor([t.values for t in trials], dtype=torch.double)
    flips = signs(study.directions)
    if len(flips) == 1:
        return float((values[kept] * flips).max() * flips[0])
    # Parents give the reference point whether or not they keep to the constraints.
    reference = reference_of(study, values, trials, reference_asked(study, spec))
    return hypervolume(values[kept], reference, study.directions)
