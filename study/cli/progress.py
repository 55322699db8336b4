"""What is seen while a study runs, on stderr: a line for each trial that is done, and bars below.

One process draws. `ConsoleReporter` is the reporter of a worker in this process, `ManyWorkers`
speaks for worker processes, whose lines it prints above its bars.
"""

import time
from typing import TYPE_CHECKING, Self

import typer
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ...errors import StudyError
from ...objectives import Measurement
from ..budget import known
from ..results.front import FrontReport, front_report
from ..results.front_table import role, rounded
from ..results.status import Status, status_of
from ..spec.study_spec import StudySpec
from ..storage.connection import load_study, shown_url
from ..storage.outages import unless_away
from ..workers.worker import Timings

if TYPE_CHECKING:
    import optuna

# Between two looks at the database for the study's bar.
_LOOK_SECONDS = 2.0
# Share of the time in which the front may be fitted for the screen.
_SHARE = 0.02


def duration(seconds: float) -> str:
    """Return a time as people say it: `45 s`, `12 min`, `3.4 h`, `2.1 days`."""
    for unit, size, limit in (("s", 1.0, 90), ("min", 60.0, 90), ("h", 3600.0, 48)):
        if seconds / size < limit:
            shown = seconds / size
            return f"{shown:.1f} {unit}" if unit == "h" or shown < 9.95 else f"{shown:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def facts(status: Status, metric_names: list[str], believed: str | None = None) -> str:
    """Return what is known of a running study in one line: time left, quality, speed, cost.

    Args:
        status: Of the study.
        metric_names: Of its objectives.
        believed: Its quality with an interval. Defaults to None: not known yet, so what was
            measured is told.
    """
    parts = []
    if status.hours_left is not None and status.n_measured < status.budget:
        parts.append(f"{duration(3600 * status.hours_left)} left")
    if believed is not None:
        parts.append(believed)
    elif status.hypervolume is not None:
        what = f"best {metric_names[0]}" if len(metric_names) == 1 else "hypervolume"
        parts.append(f"{what} {status.hypervolume:.3f} (measured)")
    if status.tokens_per_second:
        parts.append(f"{status.tokens_per_second:.0f} tokens/s")
    if (money := status.price.get("money")) is not None:
        low, high = money.interval
        parts.append(f"cost {money.spent:.2f}, at the end {low:.2f} to {high:.2f}")
    if status.counts["fail"]:
        parts.append(f"{status.counts['fail']} failed")
    return ", ".join(parts)


def header(spec: StudySpec) -> None:
    """Say what begins."""
    study, n_trials = spec.study, known(spec.study.trials)
    what = "as many trials as the budget pays" if n_trials is None else f"{n_trials} trials"
    typer.echo(
        f"study {study.name}: {what} in {shown_url(study.storage)}; Ctrl-C stops it, the "
        "same command resumes",
        err=True,
    )


def summary(timings: Timings, wall_seconds: float) -> None:
    """Say where the time went."""
    typer.echo(
        f"{timings.n_trials} trials in {wall_seconds:.0f} s: suggest {timings.suggest:.1f} s, "
        f"merge {timings.merge:.2f} s, generate and score {timings.evaluate:.1f} s",
        err=True,
    )


class _Believed:
    """The quality of a running study's front with its interval, by the surrogate.

    Fitting takes longer the more trials there are: it may take `_SHARE` of the time, no more.
    """

    def __init__(self) -> None:
        self.text: str | None = None
        self._n_measured, self._next = 0, 0.0

    def look(self, study: "optuna.Study", spec: StudySpec, status: Status) -> None:
        """Bring the text up to date, if trials were measured and it is time."""
        began = time.monotonic()
        if status.hypervolume is None or status.n_measured == self._n_measured:
            return
        if began < self._next:
            return
        try:
            self.text = _quality(front_report(study, spec))
        except StudyError:  # nothing is whole yet
            return
        now = time.monotonic()
        self._n_measured, self._next = status.n_measured, now + (now - began) / _SHARE


def _quality(report: FrontReport) -> str | None:
    if not report.trials:
        return None
    if len(report.metric_names) > 1:
        return f"hypervolume {report.shown_hypervolume}"
    best = report.trials[0].user_attrs
    shown = rounded(best["denoised"][0], best["denoised_errors"][0])
    return f"best {report.metric_names[0]} {shown}"


class _Bars:
    """The study's bar, and one for the trial in hand; on terminals only.

    Args:
        spec: Of the study, with the number of trials asked for.
        console: To draw on.
    """

    def __init__(self, spec: StudySpec, console: Console) -> None:
        self._spec, self._looked = spec, 0.0
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
        )
        self.progress = Progress(*columns, console=console, transient=True)
        total = known(spec.study.trials)
        self._whole = self.progress.add_task(spec.study.name, total=total, facts="")
        self._study: optuna.Study | None = None
        self._believed = _Believed()

    def look(self, at_once: bool = False) -> None:
        """Bring the study's bar up to date, at most every `_LOOK_SECONDS`, if it can be read."""
        now = time.monotonic()
        if not at_once and now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        unless_away(self._update)

    def _update(self) -> None:
        try:
            self._study = self._study or load_study(self._spec)
        except StudyError:  # not created yet
            return
        status = status_of(self._study, self._spec, self._spec.study.trials)
        self._believed.look(self._study, self._spec, status)
        shown = facts(status, self._spec.metric_names, self._believed.text)
        total = known(status.budget)
        self.progress.update(self._whole, completed=status.n_measured, total=total, facts=shown)


class ConsoleReporter:
    """The reporter of one worker: bars on a terminal, elsewhere the finished lines only.

    Args:
        spec: Of the study, for its metrics and its number of trials.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self.console = Console(stderr=True, highlight=False)
        self._bars: _Bars | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Do nothing: the bars open with the first trial."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the bars away."""
        self._close()

    def started(self, trial: FrozenTrial, n_questions: int) -> None:
        """Open the trial's bar."""
        if not self.console.is_terminal:
            return
        if self._bars is None:
            self._bars = _Bars(self._spec, self.console)
            self._bars.progress.start()
        self._bars.look()
        self._task = self._bars.progress.add_task(self._title(trial), total=n_questions, facts="")

    def answered(self, n: int) -> None:
        """Advance the bar."""
        if self._bars is not None and self._task is not None:
            self._bars.progress.advance(self._task, n)

    def finished(self, trial: FrozenTrial, measurement: Measurement) -> None:
        """Replace the bar by the measured values, or by what ruled the candidate out."""
        if measurement.broken:
            found = measurement.constraints
            off = ", ".join(f"{name} by {found[name][0]:.3f}" for name in measurement.broken)
            self._say(f"{self._title(trial)}  breaks {off}: nothing was asked")
            return
        values = zip(
            self._spec.metric_names, measurement.values, measurement.standard_errors, strict=True
        )
        shown = "  ".join(
            f"{name} {_told(value)} ± {_told(error)}" for name, value, error in values
        )
        self._say(f"{self._title(trial)}  {shown}  {measurement.evaluate_seconds:.1f} s")

    def failed(self, trial: FrozenTrial, reason: str) -> None:
        """Replace the bar by the reason."""
        self._say(f"{self._title(trial)}  FAIL: {reason}")

    def _say(self, line: str) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.progress.remove_task(self._task)
            self._task = None
        self.console.print(line, markup=False, soft_wrap=True)

    def _title(self, trial: FrozenTrial) -> str:
        total = known(self._spec.study.trials)
        of = "" if total is None else f" of {total}"
        return f"trial {trial.number:3d}{of}  {role(trial):<12}"

    def _close(self) -> None:
        if self._bars is not None:
            self._bars.progress.stop()
            self._bars = self._task = None


class ManyWorkers:
    """Draws for several worker processes: their finished lines, and one bar for the study.

    Args:
        spec: Of the study, with the number of trials asked for.
    """

    def __init__(self, spec: StudySpec) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._bars = _Bars(spec, self.console) if self.console.is_terminal else None

    def __enter__(self) -> Self:
        """Open the bar."""
        if self._bars:
            self._bars.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the bar away."""
        if self._bars:
            self._bars.progress.stop()

    def said(self, line: str) -> None:
        """Print a worker's line, whole, above the bar."""
        self.console.print(line, markup=False, soft_wrap=True)

    def tick(self) -> None:
        """Bring the bar up to date."""
        if self._bars:
            self._bars.look()


def _told(value: float) -> str:
    """Return a number with three decimals, or none where it is large, as bytes are."""
    return f"{value:.3f}" if abs(value) < 1e4 else f"{value:.0f}"
