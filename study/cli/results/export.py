"""`mergefront export`."""

import shlex
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import SpecError
from ..app import MODELS, OutOption, SpecArgument, StorageOption, command, read_spec

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from ...spec.inputs import StudyInputs


class ExportFormat(StrEnum):
    """What is written."""

    CHECKPOINT = "checkpoint"
    MERGEKIT = "mergekit"


@command("export", panel=MODELS)
def export(
    spec: SpecArgument,
    out: OutOption,
    trial: Annotated[
        int | None,
        typer.Option("--trial", metavar="N", help="Number of the trial, as `front` lists it."),
    ] = None,
    preference: Annotated[
        str | None,
        typer.Option(
            "--preference",
            metavar="W",
            help="Instead of a trial, what is recommended: weight of the first objective, 0 to 1, "
            "or of each, separated by commas.",
        ),
    ] = None,
    storage: StorageOption = None,
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format", metavar="KIND", help="`checkpoint`, or `mergekit`: its configuration."
        ),
    ] = ExportFormat.CHECKPOINT,
) -> None:
    """Save a trial's merged model, or a recommended one, with model card and recipe.

    Example: mergefront export examples/demo.yaml --preference 0.5 --out merged
    """
    from ...opening import open_inputs
    from ...results.export import export_candidate, export_mergekit
    from ...seeding import check_same_study
    from ...storage.connection import load_study

    parsed = read_spec(spec, storage)
    study, inputs = load_study(parsed), open_inputs(parsed)
    check_same_study(study, inputs)
    chosen = _chosen(study, inputs, trial, preference)
    if format is ExportFormat.MERGEKIT:
        typer.echo(export_mergekit(inputs, chosen, out))
        return
    export_candidate(inputs, study, chosen, out)
    typer.echo(out)
    shown = shlex.quote(str(out))
    typer.echo(
        f"load it:  AutoModelForCausalLM.from_pretrained({str(out)!r})\n"
        f"serve it: vllm serve {shown}\n"
        f"share it: hf upload ORG/NAME {shown}",
        err=True,
    )


def _chosen(
    study: "Study", inputs: "StudyInputs", number: int | None, preference: str | None
) -> "FrozenTrial":
    from ...results.export import trial_of
    from ...results.recommendations import parse_preference, recommended_trial

    if (number is None) == (preference is None):
        raise SpecError(
            "export needs one of --trial and --preference: a trial's number, or what to take for "
            "a preference, for example --preference 0.5."
        )
    if preference is None:
        return trial_of(study, number or 0)
    weights = parse_preference(preference, len(study.directions))
    return recommended_trial(study, inputs.spec, weights)
