"""`mergefront export`."""

import shlex
from enum import StrEnum
from typing import Annotated

import typer

from ..app import MODELS, OutOption, SpecArgument, StorageOption, command, read_spec


class ExportFormat(StrEnum):
    """What is written."""

    CHECKPOINT = "checkpoint"
    MERGEKIT = "mergekit"


@command("export", panel=MODELS)
def export(
    spec: SpecArgument,
    trial: Annotated[
        int, typer.Option("--trial", metavar="N", help="Number of the trial, as `front` lists it.")
    ],
    out: OutOption,
    storage: StorageOption = None,
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format", metavar="KIND", help="`checkpoint`, or `mergekit`: its configuration."
        ),
    ] = ExportFormat.CHECKPOINT,
) -> None:
    """Save a trial's merged model, with model card and recipe.

    Example: mergefront export examples/demo.yaml --trial 17 --out merged
    """
    from ...results.export import export_mergekit, export_trial
    from ...seeding import check_same_study
    from ...spec.inputs import StudyInputs
    from ...storage.connection import load_study

    parsed = read_spec(spec, storage)
    study, inputs = load_study(parsed), StudyInputs.of(parsed)
    check_same_study(study, inputs)
    if format is ExportFormat.MERGEKIT:
        typer.echo(export_mergekit(inputs, study, trial, out))
        return
    export_trial(inputs, study, trial, out)
    typer.echo(out)
    shown = shlex.quote(str(out))
    typer.echo(
        f"load it:  AutoModelForCausalLM.from_pretrained({str(out)!r})\n"
        f"serve it: vllm serve {shown}\n"
        f"share it: hf upload ORG/NAME {shown}",
        err=True,
    )
