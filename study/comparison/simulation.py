"""Many workers on a simulated clock: a search as it would have run, evaluated one by one.

Every candidate is measured when a worker takes it, but its values are known to proposals only
after the seconds that its evaluation takes.
"""

import copy
import datetime
import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from ..baseline import Baseline
from ..workers.batches import BATCH, batch_view
from ..workers.proposals import propose

# User attribute: simulated seconds of the begin and the end of an evaluation.
SPAN = "simulated_seconds"
_EPOCH = datetime.datetime(2000, 1, 1)


@dataclass(frozen=True)
class Evaluated:
    """What one evaluation gave.

    Args:
        values: One per objective.
        attributes: User attributes.
        seconds: That it takes on the simulated clock.
        constraints: Name -> violation.
    """

    values: Sequence[float]
    attributes: Mapping[str, Any]
    seconds: float
    constraints: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Usage:
    """What became of the workers' time.

    Args:
        seconds: From the first claim to the last end.
        utilisation: Share of all workers' time until the last claim that was evaluation;
            after that nobody can be kept busy.
        overall: The same until the last end.
    """

    seconds: float
    utilisation: float
    overall: float


@dataclass
class Simulation:
    """A study searched by simulated workers.

    Args:
        study: With the sampler; its trials are continued, and finished ones are added to it.
        space: The parameters of a new candidate.
        evaluate: Measures a candidate.
        n_workers: Simulated.
        batch: Size of synchronous batches. Defaults to None: whoever is free proposes.
        queue: Trials to start with, in this order.
        suggest_seconds: That a proposal takes; one worker proposes at a time.
        baseline: Proposes uniform merges before the sampler is asked. Defaults to None: none.
    """

    study: optuna.Study
    space: Mapping[str, BaseDistribution]
    evaluate: Callable[[FrozenTrial], Evaluated]
    n_workers: int
    batch: int | None = None
    queue: Sequence[FrozenTrial] = ()
    suggest_seconds: float = 0.0
    baseline: Baseline | None = None

    def run(self, budget: int) -> list[FrozenTrial]:
        """Continue until `budget` trials are measured; return them in the order of claims."""
        done = sorted(self.study.get_trials(deepcopy=False), key=lambda t: t.number)
        free = self._free(done)
        lock = max((_span(trial)[0] for trial in done), default=0.0)
        while len(done) < budget:
            now = max(heapq.heappop(free), lock)
            trial = self._next(done, now)
            if trial is None:  # a batch is not complete: until its end nothing happens
                heapq.heappush(free, max(_span(t)[1] for t in done))
                continue
            lock = now + (self.suggest_seconds if len(done) >= len(self.queue) else 0.0)
            self.study.add_trial(self._measured(trial, lock))
            done.append(self.study.get_trials(deepcopy=False)[-1])  # with its identifier
            heapq.heappush(free, _span(done[-1])[1])
        return done

    def _free(self, done: Sequence[FrozenTrial]) -> list[float]:
        """Return the moments from which the workers are free, after what was done before."""
        free = [0.0] * self.n_workers
        for trial in done:
            heapq.heapreplace(free, _span(trial)[1])
        return free

    def _next(self, done: Sequence[FrozenTrial], now: float) -> FrozenTrial | None:
        if len(done) < len(self.queue):
            first = copy.copy(self.queue[len(done)])
            first.number = len(done)
            return first
        if self.baseline and (uniform := self.baseline.next(_seen(done, now))) is not None:
            return uniform
        if self.batch is None:
            return propose(self.study, self.space, _seen(done, now))
        if (found := batch_view(_seen(done, now), self.batch)) is None:
            return None
        number, view = found
        trial = propose(self.study, self.space, view)
        trial.user_attrs[BATCH] = number
        return trial

    def _measured(self, trial: FrozenTrial, now: float) -> FrozenTrial:
        result = self.evaluate(trial)
        span = (now, now + result.seconds)
        measured = optuna.trial.create_trial(
            state=TrialState.COMPLETE,
            values=list(result.values),
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"phase": "search", **trial.user_attrs, **result.attributes, SPAN: span},
            system_attrs=trial.system_attrs,
            constraints=dict(result.constraints) or None,
        )
        start, end = (_EPOCH + datetime.timedelta(seconds=s) for s in span)
        measured.datetime_start, measured.datetime_complete = start, end
        return measured


def usage(trials: Sequence[FrozenTrial], n_workers: int) -> Usage:
    """Return how the simulated workers spent their time."""
    spans = [_span(trial) for trial in trials]
    last_claim, end = max(begin for begin, _ in spans), max(finish for _, finish in spans)
    busy = sum(min(finish, last_claim) - begin for begin, finish in spans)
    overall = sum(finish - begin for begin, finish in spans) / (n_workers * end)
    return Usage(end, busy / (n_workers * last_claim) if last_claim else 1.0, overall)


def _span(trial: FrozenTrial) -> tuple[float, float]:
    begin, end = trial.user_attrs[SPAN]
    return float(begin), float(end)


def _seen(done: Sequence[FrozenTrial], now: float) -> list[FrozenTrial]:
    """Return the trials as a proposal at that moment sees them."""
    seen = []
    for number, trial in enumerate(done):
        copied = copy.copy(trial)
        copied.number = number
        if _span(trial)[1] > now:
            copied.state, copied.values, copied.datetime_complete = TrialState.RUNNING, None, None
        seen.append(copied)
    return seen
