"""`mergefront run`."""

import time
from typing import Annotated

import typer

from ..app import STUDY, SpecArgument, StorageOption, TrialsOption, command, read_spec


@command("run", panel=STUDY)
def run(
    spec: SpecArgument,
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
) -> None:
    """Create the study, or resume it, and finish its budget.

    Example: mergefront run examples/demo.yaml
    """
    from ...dry_run import plan_study
    from ...run import run as run_study
    from ...run import run_many
    from ...seeding import init_study
    from ...spec.inputs import StudyInputs
    from ..progress import ConsoleReporter

    parsed = read_spec(spec, storage, trials)
    if dry_run:
        for title, text in plan_study(parsed):
            typer.echo(f"{title:<10} {text}")
        return
    inputs = StudyInputs.of(parsed)
    if workers > 1:
        init_study(inputs)
        arguments = ["worker", str(spec), "--trials", str(parsed.study.trials)]
        run_many(parsed, arguments, workers)
        return
    reporter, start = ConsoleReporter(parsed), time.perf_counter()
    timings = run_study(inputs, reporter)
    reporter.summary(timings, time.perf_counter() - start)
