"""`mergefront importance`."""

import typer

from ._app import Format, FormatOption, SpecArgument, StorageOption, command, print_json, read_spec


@command("importance")
def importance(
    spec: SpecArgument, storage: StorageOption = None, format: FormatOption = Format.TABLE
) -> None:
    """Print how far fine-tuning moved each search variable's tensors.

    Example: mergefront importance examples/demo.yaml
    """
    from ...objectives.importance import relative_norms, rescale
    from ..inputs import Inputs

    inputs = Inputs.of(read_spec(spec, storage))
    norms = relative_norms(inputs.base, inputs.experts, inputs.plan)
    scaled = rescale(norms)
    if format is Format.JSON:
        print_json({n: {"relative_norm": norms[n], "importance": scaled[n]} for n in norms})
        return
    typer.echo(f"{'variable':<16} {'relative norm':>14} {'importance':>11}")
    for name, norm in norms.items():
        typer.echo(f"{name:<16} {norm:>14.4f} {scaled[name]:>11.3f}")
