"""`mergefront run`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import SpecError
from ..app import (
    STUDY,
    LogFormatOption,
    MetricsOption,
    StorageOption,
    TrialsOption,
    command,
    read_spec,
)
from ..json_lines import LogFormat
from ..next_steps import AFTER_RUN, say_next
from .new import NOTHING, LengthOption, NameOption, TaskOption, draft_of, write

if TYPE_CHECKING:
    from ...spec.inputs import StudyInputs
    from ...spec.study_spec import StudySpec


@command("run", panel=STUDY, stopped=0)
def run(  # noqa: PLR0913 - a command's options
    spec: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC | BASE EXPERT...",
            help="A study's specification, a YAML file; or a fast model and one or more strong "
            "ones (paths or hub ids), for which NAME.yaml is written.",
        ),
    ],
    task: TaskOption = NOTHING,
    name: NameOption = "",
    max_new_tokens: LengthOption = None,
    storage: StorageOption = None,
    trials: TrialsOption = None,
    workers: Annotated[
        int,
        typer.Option("--workers", min=1, metavar="N", help="Worker processes on this machine."),
    ] = 1,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", metavar="", help="Check everything and print the plan; create nothing."
        ),
    ] = False,
    log_format: LogFormatOption = LogFormat.TEXT,
    metrics: MetricsOption = "",
) -> None:
    """Create the study, or resume it, and finish its budget.

    Example: mergefront run examples/demo.yaml

    Example: mergefront run BASE EXPERT --task gsm8k --trials 60
    """
    from ...opening import open_inputs

    if len(spec) > 1:
        draft = draft_of(spec[0], spec[1:], task, name, trials, max_new_tokens)
        path, parsed = draft.path, draft.spec(draft.path).with_overrides(storage, trials)
    else:
        draft, path = None, _existing(spec[0], task or name or max_new_tokens)
        parsed = read_spec(path, storage, trials)
    if dry_run:
        _print_plan(parsed)
        return
    inputs = open_inputs(parsed)
    if draft is not None:  # a file of a mistyped model would be in the way of the right one's
        write(draft)
    run_here(inputs, path, workers, log_format, metrics)
    if log_format is LogFormat.TEXT:
        say_next(path, storage, AFTER_RUN)


def _existing(spec: str, has_draft_options: object) -> Path:
    """Return the path of a spec that is there, after checking that no model was meant."""
    if Path(spec).is_dir() or has_draft_options:
        raise SpecError(
            f"`mergefront run` needs a spec, or BASE and at least one EXPERT, but got {spec!r} "
            "alone. Add the expert: a path or a hub id."
        )
    return Path(spec)


def _print_plan(spec: "StudySpec") -> None:
    from ...dry_run import plan_study

    for title, text in plan_study(spec):
        typer.echo(f"{title:<10} {text}")


def run_here(
    inputs: "StudyInputs",
    path: Path,
    workers: int = 1,
    log_format: LogFormat = LogFormat.TEXT,
    metrics: str = "",
) -> None:
    """Create or resume a study on this machine, and finish its budget in sight of the user.

    Args:
        inputs: What the study is made of.
        path: Of its spec, for further processes.
        workers: Processes.
        log_format: Of stderr.
        metrics: `[HOST:]PORT` of the first worker's metrics; empty for none.
    """
    from ...run import run, run_many
    from ...seeding import created
    from ...workers.room import check_room
    from ..progress import ManyWorkers, header, summary
    from ..telemetry import address_of, worker_reporter

    spec, start = inputs.spec, time.perf_counter()
    say = log_format is LogFormat.TEXT
    if say:
        header(spec)
    if workers == 1:
        with worker_reporter(spec, log_format, metrics) as reporter:
            timings = run(inputs, reporter)
        if say:
            summary(timings, time.perf_counter() - start)
        return
    addresses = [address_of(metrics, i) for i in range(workers)] if metrics else []
    check_room(spec)
    created(inputs)
    line = ["worker", str(path), "--trials", str(spec.study.trials), "--log-format", log_format]
    served = [["--metrics", f"{host}:{port}"] for host, port in addresses] or [[]] * workers
    with ManyWorkers(spec) as screen:
        run_many(spec, [[*line, *more] for more in served], screen.said, screen.tick)
    if say:
        typer.echo(f"{workers} workers: done after {time.perf_counter() - start:.0f} s", err=True)
