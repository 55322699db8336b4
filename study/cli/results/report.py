"""`mergefront report`."""

from pathlib import Path

import typer

from ..app import RESULTS, OutOption, SpecArgument, StorageOption, command, read_spec


@command("report", panel=RESULTS)
def report(spec: SpecArgument, out: OutOption, storage: StorageOption = None) -> None:
    """Write pictures of the study and one self-contained HTML page.

    Example: mergefront report examples/demo.yaml --out runs/demo/report
    """
    from ...results.report.page import write_report
    from ...storage.connection import load_study

    parsed = read_spec(spec, storage)
    for path in write_report(load_study(parsed), parsed, out):
        typer.echo(Path(path))
