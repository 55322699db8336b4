"""What operators of many workers read: log lines as JSON, and metrics for Prometheus."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from ...errors import MissingExtraError, SpecError, StudyError
from ...objectives import Measurement
from ..budget import known
from ..seeding import BUDGET
from ..spec.study_spec import StudySpec
from ..storage.connection import load_study
from ..storage.ledger import Ledger
from ..storage.optuna_tables import TRIALS
from ..workers.worker import Reporter
from .json_lines import WORKER, LogFormat
from .progress import ConsoleReporter

if TYPE_CHECKING:
    from prometheus_client.core import GaugeMetricFamily

logger = logging.getLogger(WORKER)

_LOCAL = "127.0.0.1"


class JsonReporter:
    """The reporter of a worker whose lines a program reads.

    Args:
        spec: Of the study, for its name and metrics.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec

    def started(self, trial: FrozenTrial, n_answers: int) -> None:
        """Log the trial and how many answers it takes."""
        self._say("trial started", trial, answers=n_answers, phase=trial.user_attrs.get("phase"))

    def answered(self, n: int) -> None:
        """Say nothing."""

    def finished(self, trial: FrozenTrial, measurement: Measurement) -> None:
        """Log the measured values and where the time went."""
        # A candidate that was screened has no values.
        names = [] if measurement.broken else self._spec.metric_names
        self._say(
            "trial finished",
            trial,
            values=dict(zip(names, measurement.values, strict=True)),
            standard_errors=dict(zip(names, measurement.standard_errors, strict=True)),
            generated_tokens=sum(answer.n_tokens for answer in measurement.answers),
            merge_seconds=measurement.merge_seconds,
            evaluate_seconds=measurement.evaluate_seconds,
            pruned=measurement.pruned,
            screened=list(measurement.broken) or None,
        )

    def failed(self, trial: FrozenTrial, reason: str) -> None:
        """Log the reason."""
        self._say("trial failed", trial, logging.ERROR, reason=reason)

    def _say(
        self, event: str, trial: FrozenTrial, level: int = logging.INFO, **facts: Any
    ) -> None:
        facts |= {"study": self._spec.study.name, "trial": trial.number}
        logger.log(level, event, extra=facts)


class Metrics:
    """A reporter that counts, and passes on what it is told.

    Counters are of this worker; `mergefront_study_trials` and `mergefront_study_budget` are of the
    study, read from its database whenever somebody asks for them.

    Args:
        told: The reporter that speaks.
        spec: Of the study.
    """

    def __init__(self, told: Reporter, spec: StudySpec) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge

        self._told, self._phase, self._since = told, "start", time.perf_counter()
        self.registry, label = CollectorRegistry(), ["study"]
        name = spec.study.name

        def counter(what: str, text: str, *labels: str) -> Counter:
            made = Counter(f"mergefront_{what}", text, [*label, *labels], registry=self.registry)
            return made if labels else made.labels(name)

        self._name = name
        self._trials = counter("trials", "Trials that this worker ended, by how.", "state")
        self._answers = counter("answers", "Answers that models gave.")
        self._tokens = counter("generated_tokens", "Tokens of measured trials.")
        self._seconds = counter("seconds", "Seconds of work, by phase.", "phase")
        gauge = Gauge("mergefront_running", "1 in a trial.", label, registry=self.registry)
        self._running = gauge.labels(name)
        self.registry.register(_StudyCounts(spec))

    def started(self, trial: FrozenTrial, n_answers: int) -> None:
        """Count the time since the last trial, or since the start."""
        self._spend(self._phase, self._elapsed())
        self._running.set(1)
        self._told.started(trial, n_answers)

    def answered(self, n: int) -> None:
        """Count answers."""
        self._answers.inc(n)
        self._told.answered(n)

    def finished(self, trial: FrozenTrial, measurement: Measurement) -> None:
        """Count the trial, its tokens and its time."""
        self._end("pruned" if measurement.pruned else "complete")
        self._tokens.inc(sum(answer.n_tokens for answer in measurement.answers))
        self._spend("merge", measurement.merge_seconds)
        self._spend("evaluate", measurement.evaluate_seconds)
        self._told.finished(trial, measurement)

    def failed(self, trial: FrozenTrial, reason: str) -> None:
        """Count the failure."""
        self._end("fail")
        self._told.failed(trial, reason)

    def _end(self, state: str) -> None:
        self._running.set(0)
        self._trials.labels(self._name, state).inc()
        self._elapsed()
        self._phase = "claim"

    def _spend(self, phase: str, seconds: float) -> None:
        self._seconds.labels(self._name, phase).inc(max(seconds, 0.0))

    def _elapsed(self) -> float:
        """Return the seconds since the last call."""
        now = time.perf_counter()
        since, self._since = self._since, now
        return now - since


class _StudyCounts:
    """Collects a study's trials by state; nothing while the database is away."""

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._study: optuna.Study | None = None

    def collect(self) -> "Iterator[GaugeMetricFamily]":
        """Yield the families of gauges."""
        from prometheus_client.core import GaugeMetricFamily

        try:
            self._study = self._study or load_study(self._spec)
            counts = _count(self._study)
            budget = known(self._study.user_attrs.get(BUDGET, self._spec.study.trials))
        except (StudyError, SQLAlchemyError, optuna.exceptions.StorageInternalError):
            return
        name, text = self._spec.study.name, "Trials of the study, by state."
        trials = GaugeMetricFamily("mergefront_study_trials", text, labels=["study", "state"])
        for state, n in counts.items():
            trials.add_metric([name, state], n)
        yield trials
        if budget is not None:
            text = "Measured trials that the study shall have."
            family = GaugeMetricFamily("mergefront_study_budget", text, labels=["study"])
            family.add_metric([name], budget)
            yield family


def _count(study: optuna.Study) -> dict[str, int]:
    statement = select(TRIALS.c.state, func.count()).group_by(TRIALS.c.state)
    with Ledger(study).engine.connect() as connection:
        rows = connection.execute(statement.where(TRIALS.c.study_id == study._study_id)).all()
    counts = {state.name.lower(): 0 for state in TrialState}
    return counts | {state.name.lower(): n for state, n in rows}


@contextmanager
def worker_reporter(spec: StudySpec, log_format: LogFormat, metrics: str) -> Iterator[Reporter]:
    """Report what a worker in this process does, as asked for, within the block.

    Args:
        spec: Of the study.
        log_format: Of stderr.
        metrics: `[HOST:]PORT` to serve metrics at; empty for none.

    Raises:
        SpecError: If the address is none, or is taken.
        MissingExtraError: If metrics are asked for and prometheus-client is missing.
    """
    with ExitStack() as stack:
        reporter: Reporter
        if log_format is LogFormat.JSON:
            optuna.logging.disable_default_handler()
            optuna.logging.enable_propagation()
            reporter = JsonReporter(spec)
        else:
            reporter = stack.enter_context(ConsoleReporter(spec))
        if metrics:
            reporter = stack.enter_context(_served(reporter, spec, metrics))
        yield reporter


def address_of(metrics: str, place: int = 0) -> tuple[str, int]:
    """Return host and port of `[HOST:]PORT`; the port of the n-th worker is n further.

    Raises:
        SpecError: If it is none.
    """
    host, _, port = metrics.rpartition(":")
    if not (port.isdecimal() and 0 < int(port) < (1 << 16) - place):
        raise SpecError(f"--metrics must be [HOST:]PORT, such as 9464, but got {metrics!r}.")
    return host.strip("[]") or _LOCAL, int(port) + place


@contextmanager
def _served(told: Reporter, spec: StudySpec, metrics: str) -> Iterator[Metrics]:
    host, port = address_of(metrics)
    try:
        from prometheus_client import start_http_server
    except ImportError as error:
        raise MissingExtraError(
            "--metrics needs prometheus-client; run `pip install 'mergefront[metrics]'`."
        ) from error
    counted = Metrics(told, spec)
    try:
        server, thread = start_http_server(port, host, counted.registry)
    except OSError as error:
        raise SpecError(
            f"Metrics cannot be served at {host}:{port}: {error.strerror}. Choose another "
            "--metrics."
        ) from error
    try:
        yield counted
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
