"""`mergefront publish`."""

import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from ..app import MODELS, SpecArgument, StorageOption, command, read_spec

_HUB_ID = re.compile(r"^[\w-][\w.-]*/[\w-][\w.-]*$")


@command("publish", panel=MODELS)
def publish(
    spec: SpecArgument,
    trial: Annotated[
        int, typer.Option("--trial", metavar="N", help="The trial's number, as `front` lists it.")
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="DIR | ORG/NAME",
            help="New folder, or a repository on the Hugging Face hub. What begins with ./ or /, "
            "or lies in a folder that exists here, is a folder.",
        ),
    ],
    private: Annotated[
        bool, typer.Option("--private", metavar="", help="Make a new repository private.")
    ] = False,
    storage: StorageOption = None,
) -> None:
    """Publish a trial's model: checkpoint, card with validated values, recipe and manifest.

    Refused where a parent's licence allows no derivatives.

    Example: mergefront publish examples/demo.yaml --trial 17 --to ./published
    """
    from ...opening import open_inputs
    from ...results.sharing.publish import publish_to_folder, publish_to_hub
    from ...seeding import check_same_study
    from ...storage.connection import load_study

    parsed = read_spec(spec, storage)
    study, inputs = load_study(parsed), open_inputs(parsed)
    check_same_study(study, inputs)
    if _is_hub_id(to):
        typer.echo(publish_to_hub(inputs, study, trial, to, private))
        return
    publish_to_folder(inputs, study, trial, Path(to))
    typer.echo(to)
    typer.echo(f"make it again: mergefront reproduce {shlex.quote(str(to))}", err=True)


def _is_hub_id(to: str) -> bool:
    return bool(_HUB_ID.match(to)) and not Path(to).parent.is_dir()
