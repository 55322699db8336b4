"""`mergefront merge`."""

from pathlib import Path
from typing import Annotated

import typer

from ..app import OutOption, SpecArgument, StorageOption, command, read_spec


@command("merge")
def merge(
    spec: SpecArgument,
    weights: Annotated[Path, typer.Option("--weights", metavar="FILE", help="Weights as JSON.")],
    out: OutOption,
    storage: StorageOption = None,
) -> None:
    """Merge with given weights, without a study: {"layer_000": 0.4, ...} or {"uniform": 0.5}.

    Example: mergefront merge examples/demo.yaml --weights weights.json --out merged
    """
    from ...results.export import merge_weights
    from ...spec.inputs import StudyInputs

    merge_weights(StudyInputs.of(read_spec(spec, storage)), weights, out)
    typer.echo(out)
