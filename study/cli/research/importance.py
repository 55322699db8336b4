"""`mergefront importance`."""

import typer

from ..app import (
    RESEARCH,
    Format,
    FormatOption,
    SpecArgument,
    StorageOption,
    command,
    print_json,
    read_spec,
)


@command("importance", panel=RESEARCH)
def importance(
    spec: SpecArgument, storage: StorageOption = None, format: FormatOption = Format.TABLE
) -> None:
    """Show how much each layer is expected to matter, and why.

    Example: mergefront importance examples/demo.yaml
    """
    from ...importance import compute_importance, signals_of
    from ...opening import open_inputs

    inputs = open_inputs(read_spec(spec, storage))
    signals = signals_of(inputs)
    importance = compute_importance(inputs, signals) or {}
    columns = {_title(name, inputs.spec.importance.norm): s for name, s in signals.items()}
    columns["importance"] = importance
    choices = inputs.plan.settings.categories
    names = [name for name in inputs.plan.parameter_names if name not in choices]
    if format is Format.JSON:
        print_json({n: {title: values.get(n) for title, values in columns.items()} for n in names})
        return
    typer.echo(f"{'variable':<16}" + "".join(f" {title:>20}" for title in columns))
    for name in names:
        cells = [values.get(name) for values in columns.values()]
        shown = ("" if value is None else f"{value:.4f}" for value in cells)
        typer.echo(f"{name:<16}" + "".join(f" {cell:>20}" for cell in shown))


def _title(signal: str, norm: str) -> str:
    return "activation_distance" if signal == "activation" else f"{norm}_norm"
