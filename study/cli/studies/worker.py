"""`mergefront worker`."""

from typing import Annotated

import typer

from ..app import SpecArgument, StorageOption, TrialsOption, command, read_spec


@command("worker")
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
            help="For the database, and for the study to be created.",
        ),
    ] = 0.0,
) -> None:
    """Run one worker of an existing study until its budget is complete.

    Example: mergefront worker examples/demo.yaml
    """
    from ...run import work
    from ...spec.inputs import StudyInputs
    from ..progress import ConsoleReporter

    parsed = read_spec(spec, storage, trials)
    work(StudyInputs.of(parsed), ConsoleReporter(parsed), wait)
