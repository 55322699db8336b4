"""`mergefront report`."""

from pathlib import Path
from typing import Annotated

import typer

from ..app import RESULTS, SpecArgument, StorageOption, command, read_spec


@command("report", panel=RESULTS)
def report(
    spec: SpecArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Directory to write into. Defaults to NAME.report beside the study's database.",
        ),
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Write one self-contained HTML page about the study, and its pictures.

    Example: mergefront report examples/demo.yaml --out runs/demo/report
    """
    from ...results.report.page import write_report
    from ...storage.connection import load_study, state_dir

    parsed = read_spec(spec, storage)
    folder = out or state_dir(parsed).with_suffix(".report")
    for path in write_report(load_study(parsed), parsed, folder, str(spec)):
        typer.echo(Path(path))
