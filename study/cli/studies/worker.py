"""`mergefront worker`."""

from typing import Annotated

import typer

from ..app import (
    STUDY,
    LogFormatOption,
    MetricsOption,
    SpecArgument,
    StorageOption,
    TrialsOption,
    command,
    read_spec,
)
from ..json_lines import LogFormat


@command("worker", panel=STUDY)
def worker(
    spec: SpecArgument,
    storage: StorageOption = None,
    trials: TrialsOption = None,
    wait: Annotated[
        float,
        typer.Option(
            "--wait",
            min=0,
            metavar="SECONDS",
            help="How long to wait for the database, and for the study to be created.",
        ),
    ] = 0.0,
    log_format: LogFormatOption = LogFormat.TEXT,
    metrics: MetricsOption = "",
) -> None:
    """Join a study that exists as one more worker, until its budget is complete.

    Exits with 143 after SIGTERM, the trial in hand queued again, so that Kubernetes and other
    orchestrators start it anew elsewhere.

    Example: mergefront worker examples/demo.yaml
    """
    from ...opening import worker_inputs
    from ...run import work
    from ..telemetry import worker_reporter

    parsed = read_spec(spec, storage, trials)
    with worker_reporter(parsed, log_format, metrics) as reporter:
        work(worker_inputs(parsed, wait), reporter, wait)
