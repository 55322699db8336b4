"""`mergefront status`."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from ..app import (
    STUDY,
    Format,
    FormatOption,
    SpecArgument,
    StorageOption,
    command,
    print_json,
    read_spec,
)

if TYPE_CHECKING:
    from ...results.status import Status

_WATCH_SECONDS = 5.0
_SHOWN_FAILURES = 3


@command("status", panel=STUDY)
def status(
    spec: SpecArgument,
    storage: StorageOption = None,
    format: FormatOption = Format.TABLE,
    watch: Annotated[
        bool, typer.Option("--watch", metavar="", help="Repeat until the study is complete.")
    ] = False,
) -> None:
    """Show how far a study is, who works on it and what failed.

    Example: mergefront status examples/demo.yaml --watch
    """
    from ...results.status import status_of
    from ...storage.connection import load_study

    parsed = read_spec(spec, storage)
    study = load_study(parsed)
    while True:
        current = status_of(study, parsed)
        if watch:
            click.clear()
        if format is Format.JSON:
            print_json(_as_json(current))
        else:
            _print(current)
        if not watch or current.n_measured >= current.budget:
            return
        time.sleep(_WATCH_SECONDS)


def _as_json(current: "Status") -> dict[str, Any]:
    content = asdict(current)
    counts = content.pop("counts")
    # Numbers of trials by state are the top level's, the trials in hand `in_hand`.
    in_hand = content.pop("running")
    failures = [{"number": n, "reason": reason} for n, reason in content.pop("failures")]
    last = failures[-1]["reason"] if failures else None
    return {**content, **counts, "in_hand": in_hand, "failures": failures, "last_failure": last}


def _print(current: "Status") -> None:
    counts = current.counts
    lines = {
        "study": current.study,
        "complete": f"{counts['complete']} of {current.budget}",
        **({"stopped early": counts["pruned"]} if counts["pruned"] else {}),
        "running": f"{counts['running']} ({current.workers} workers alive)",
        "waiting": counts["waiting"],
        "failed": counts["fail"],
        "trials per hour": _number(current.trials_per_hour),
        "hours left": _number(current.hours_left),
        "generated tokens": current.generated_tokens,
    }
    for key, value in lines.items():
        typer.echo(f"{key:<18} {value}")
    for trial in current.running:
        typer.echo(
            f"  trial {trial.number:<4} {trial.worker}  for {trial.seconds:.0f} s, "
            f"last heartbeat {trial.silence:.0f} s ago"
        )
    for number, reason in current.failures[-_SHOWN_FAILURES:]:
        typer.echo(f"  trial {number:<4} FAIL: {reason}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
