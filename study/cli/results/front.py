"""`mergefront front`."""

from typing import TYPE_CHECKING

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
    from ...results.front import FrontReport


@command("front", panel=RESULTS)
def front(
    spec: SpecArgument, storage: StorageOption = None, format: FormatOption = Format.TABLE
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
        print_front(report)


def print_front(report: "FrontReport") -> None:
    """Print the front as a table, and the hypervolumes."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD, title=f"{report.study}: Pareto front, as denoised and as measured"
    )
    table.add_column("trial", justify="right")
    table.add_column("phase")
    for name in report.metric_names:
        table.add_column(name, justify="right")
        table.add_column("measured", justify="right", style="dim")
    for trial in report.trials:
        table.add_row(
            *_row(trial, report.knee), style="bold" if trial.number == report.knee else ""
        )
    console = Console(highlight=False, width=None if Console().is_terminal else 100)
    console.print(table)
    console.print(_summary(report))


def _row(trial: object, knee: int | None) -> list[str]:
    from optuna.trial import FrozenTrial

    assert isinstance(trial, FrozenTrial)
    attributes = trial.user_attrs
    errors = attributes.get("standard_errors") or [float("nan")] * len(trial.values)
    cells = [str(trial.number), str(attributes.get("label") or attributes.get("phase", ""))]
    for mean, deviation, value, error in zip(
        attributes["denoised"], attributes["denoised_errors"], trial.values, errors, strict=True
    ):
        cells += [f"{mean:.3f} ± {deviation:.3f}", f"{value:.3f} ± {error:.3f}"]
    return cells


def _summary(report: "FrontReport") -> str:
    reference = ", ".join(
        f"{name} {value:.3g}"
        for name, value in zip(report.metric_names, report.reference_point, strict=True)
    )
    if not report.trials:
        return "no trial is believed to keep to the constraints yet"
    uniform = report.hypervolume_uniform
    gain = f" ({100 * (report.hypervolume / uniform - 1):+.0f} %)" if uniform > 0 else ""
    return (
        f"hypervolume {report.hypervolume:.3f}, uniform merges alone {uniform:.3f}{gain}; "
        f"reference point {reference}; knee: trial {report.knee}"
    )
