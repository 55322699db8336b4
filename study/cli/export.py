"""`mergefront export`."""

from typing import Annotated

import typer

from ._app import OutOption, SpecArgument, StorageOption, command, read_spec


@command("export")
def export(
    spec: SpecArgument,
    trial: Annotated[int, typer.Option("--trial", help="The trial's number.")],
    out: OutOption,
    storage: StorageOption = None,
) -> None:
    """Write a trial's merged model as a checkpoint with its card and recipe.

    Example: mergefront export examples/demo.yaml --trial 17 --out merged
    """
    from ..export import export_trial
    from ..inputs import Inputs
    from ..seeding import check_same_study
    from ..storage import load_study

    parsed = read_spec(spec, storage)
    study, inputs = load_study(parsed), Inputs.of(parsed)
    check_same_study(study, inputs)
    export_trial(inputs, study, trial, out)
    typer.echo(out)
