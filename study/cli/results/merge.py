"""`mergefront merge`."""

from pathlib import Path
from typing import Annotated

import typer

from ..app import MODELS, OutOption, SpecArgument, StorageOption, command, read_spec


@command("merge", panel=MODELS)
def merge(
    spec: SpecArgument,
    weights: Annotated[
        Path,
        typer.Option("--weights", metavar="FILE", help="JSON file with one weight per layer."),
    ],
    out: OutOption,
    storage: StorageOption = None,
) -> None:
    """Save the merge with given weights, without a study.

    The file holds {"layer_000": 0.4, ...}, or {"uniform": 0.5} for all layers.

    Example: mergefront merge examples/demo.yaml --weights weights.json --out merged
    """
    from ...opening import open_inputs
    from ...results.export import merge_weights

    merge_weights(open_inputs(read_spec(spec, storage)), weights, out)
    typer.echo(out)
