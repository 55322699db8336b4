"""`mergefront dashboard`."""

from typing import Annotated

import typer

from ..app import RESULTS, SpecArgument, StorageOption, command, read_spec


@command("dashboard", panel=RESULTS)
def dashboard(
    spec: SpecArgument,
    storage: StorageOption = None,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Address to listen on. There is no password."
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, metavar="N", help="Port to listen on.")
    ] = 8080,
    refresh: Annotated[
        float,
        typer.Option(
            "--refresh",
            min=1,
            metavar="SECONDS",
            help="Pause between two redraws of the pictures.",
        ),
    ] = 30.0,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="Name under which browsers may ask, such as a proxy's; again for more.",
        ),
    ] = None,
) -> None:
    """Serve the report's page of a running study, and optuna-dashboard behind it.

    Example: mergefront dashboard examples/demo.yaml
    """
    from ...results.report.dashboard import Address, serve

    parsed = read_spec(spec, storage)

    def announce(address: str) -> None:
        typer.echo(f"Serving {parsed.study.name!r} at {address} (Ctrl-C ends it).", err=True)

    serve(parsed, str(spec), Address(host, port, allow_host or ()), refresh, announce)
