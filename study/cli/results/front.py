"""`mergefront front`."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..app import (
    RESULTS,
    Format,
    FormatOption,
    SpecArgument,
    StorageOption,
    command,
    print_json,
    read_spec,
)

if TYPE_CHECKING:
    from rich.table import Table

    from ...results.front import FrontReport
    from ..tables import Row


@command("front", panel=RESULTS)
def front(
    spec: SpecArgument,
    storage: StorageOption = None,
    format: FormatOption = Format.TABLE,
    wide: Annotated[
        bool, typer.Option("--wide", metavar="", help="All columns, however narrow the terminal.")
    ] = False,
) -> None:
    """Show the models that nothing beats: the Pareto front, corrected for measurement noise.

    Example: mergefront front examples/demo.yaml --format json
    """
    from ...results.front import front_report
    from ...storage.connection import load_study

    parsed = read_spec(spec, storage)
    report = front_report(load_study(parsed), parsed)
    if format is Format.JSON:
        print_json(report.to_json())
    else:
        print_front(report, wide)


def print_front(report: "FrontReport", wide: bool = False) -> None:
    """Print the front as a table, and the hypervolumes.

    Args:
        report: Of a study.
        wide: Also what was measured, where the terminal is too narrow for it.
    """
    from ...results.front_table import arm_counts, thin_curve
    from ..tables import make_table, print_table

    whole = "Models" if len(report.metric_names) == 1 else "Pareto front"
    title = f"{report.study}: {whole}, noise-corrected and measured"
    full = make_table(title, *_cells(report, measured=True))
    short = make_table(f"{report.study}: {whole}, noise-corrected", *_cells(report, False))
    print_table(full, *([] if wide else [short]))
    if report.trials:
        print_table(_recommended(report))
    typer.echo(report.summary())
    if report.trials and report.layerwise is not None:
        typer.echo(report.layerwise.sentence())
    if counts := arm_counts(report.denoised.trials):
        shown = ", ".join(f"{name} {n}" for name, n in counts.items())
        typer.echo(f"measured of each choice: {shown}")
    if thin := thin_curve(report.denoised.trials):
        typer.echo(thin)
    if report.tied:
        sets = "; ".join(", ".join(map(str, numbers)) for numbers in report.tied)
        typer.echo(f"cannot be told apart: trials {sets}")
    if report.warning:
        typer.echo(f"warning: {report.warning}", err=True)


def _cells(report: "FrontReport", measured: bool) -> "tuple[list[str], list[Row]]":
    """Return headings and rows: believed values, and after each what was measured."""
    from ...results.front_table import errors_of, role, rounded

    columns = ["trial", "<role"]
    for name in report.metric_names:
        columns += [name, "~measured"] if measured else [name]
    rows: list[Row] = []
    for trial in report.trials:
        cells = [str(trial.number), role(trial)]
        believed = zip(
            trial.user_attrs["denoised"], trial.user_attrs["denoised_errors"], strict=True
        )
        values = zip(trial.values, errors_of(trial), strict=True)
        for one, other in zip(believed, values, strict=True):
            cells += [rounded(*one), rounded(*other)] if measured else [rounded(*one)]
        rows.append((cells, trial.number == report.knee))
    return columns, rows


def _recommended(report: "FrontReport") -> "Table":
    """Return what to take, from one end of the front to the other."""
    from ...results.front_table import rounded
    from ...results.recommendations import spread_out, which_model
    from ..tables import make_table

    names = report.metric_names
    weight = f"weight of {names[0]}" if len(names) == 2 else "weights"
    rows: list[Row] = []
    for one in spread_out(report.recommended):
        shown = "/".join(f"{w:.2f}" for w in one.preference[: 1 if len(names) == 2 else None])
        values = [rounded(*pair) for pair in zip(one.values, one.fresh_deviations, strict=True)]
        which = which_model(one, report.denoised.trials)
        rows.append(([shown, *values, which], False))
    title = (
        "Recommended: predicted, not measured, with errors on other questions; "
        "`mergefront validate` measures them"
    )
    return make_table(title, [weight, *names, "<model"], rows)
