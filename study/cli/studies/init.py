"""`mergefront init`."""

from typing import Annotated

import typer

from ..app import STUDY, SpecArgument, StorageOption, command, read_spec


@command("init", panel=STUDY)
def init(
    spec: SpecArgument,
    storage: StorageOption = None,
    wait: Annotated[
        float,
        typer.Option(
            "--wait", min=0, metavar="SECONDS", help="Time to wait for the database to answer."
        ),
    ] = 0.0,
) -> None:
    """Check the spec, create its study and queue the parents and uniform merges.

    Harmless where the study exists with the same settings.

    Example: mergefront init examples/demo.yaml
    """
    from ...opening import open_inputs
    from ...seeding import created
    from ...storage.connection import load_study, wait_for_storage

    inputs = open_inputs(read_spec(spec, storage), wait_seconds=wait)
    wait_for_storage(inputs.spec.study.storage, wait)
    study = load_study(created(inputs).spec)
    typer.echo(f"Study {study.study_name!r} has {len(study.get_trials(deepcopy=False))} trials.")
