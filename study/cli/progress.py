"""Progress on stderr: a bar for the trial in hand, a line for each that is done."""

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from ...objectives import Measurement
from ..spec.study_spec import StudySpec
from ..workers.worker import Timings


class ConsoleReporter:
    """Draws one progress bar a trial on a terminal; elsewhere it prints the finished lines only.

    Args:
        spec: Of the study, for its metrics and its number of trials.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self.console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def started(self, trial: FrozenTrial, n_questions: int) -> None:
        """Open the trial's bar."""
        if not self.console.is_terminal:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, console=self.console, transient=True)
        self._task = self._progress.add_task(self._title(trial), total=n_questions)
        self._progress.start()

    def answered(self, n: int) -> None:
        """Advance the bar."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, n)

    def finished(self, trial: FrozenTrial, measurement: Measurement) -> None:
        """Replace the bar by the measured values."""
        self._close()
        values = zip(
            self._spec.metric_names, measurement.values, measurement.standard_errors, strict=True
        )
        shown = "  ".join(f"{name} {value:.3f} ± {error:.3f}" for name, value, error in values)
        line = f"{self._title(trial)}  {shown}  {measurement.evaluate_seconds:.1f} s"
        self.console.print(line, soft_wrap=True)

    def failed(self, trial: FrozenTrial, reason: str) -> None:
        """Replace the bar by the reason."""
        self._close()
        self.console.print(f"{self._title(trial)}  FAIL: {reason}", markup=False, soft_wrap=True)

    def summary(self, timings: Timings, wall_seconds: float) -> None:
        """Say where the time went."""
        self.console.print(
            f"{timings.n_trials} trials in {wall_seconds:.0f} s: suggest {timings.suggest:.1f} s, "
            f"merge {timings.merge:.2f} s, generate and score {timings.evaluate:.1f} s"
        )

    def _title(self, trial: FrozenTrial) -> str:
        attributes = trial.user_attrs
        phase = attributes.get("label") or attributes.get("phase", "")
        return f"trial {trial.number:3d} of {self._spec.study.trials}  {phase:<12}"

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
