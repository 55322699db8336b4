"""`mergefront status`."""

import textwrap
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..app import (
    STUDY,
    Format,
    FormatOption,
    SpecArgument,
    StorageOption,
    TrialsOption,
    command,
    print_json,
    read_spec,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...results.status import Status

_WATCH_SECONDS = 5.0
# Width of the bar, in characters.
_BAR = 24
# Of the last failures, so many are shown, and so many characters of each.
_SHOWN_FAILURES, _REASON = 3, 200


@command("status", panel=STUDY)
def status(
    spec: SpecArgument,
    storage: StorageOption = None,
    trials: TrialsOption = None,
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
    from ...storage.outages import through_outages

    parsed = read_spec(spec, storage)
    study = load_study(parsed)

    def look() -> "Status":
        if not watch:
            return status_of(study, parsed, trials)
        return through_outages(lambda: status_of(study, parsed, trials))

    if watch and format is Format.TABLE:
        _watch(look, parsed.metric_names)
        return
    while True:
        current = look()
        if format is Format.JSON:
            print_json(_as_json(current))
        else:
            typer.echo("\n".join(_lines(current, parsed.metric_names)))
        if not watch or current.done:
            return
        time.sleep(_WATCH_SECONDS)


def _watch(look: "Callable[[], Status]", metric_names: list[str]) -> None:
    """Redraw the status in place; where there is no terminal, the last one is printed."""
    from rich.live import Live
    from rich.text import Text

    with Live(auto_refresh=False) as live:
        while True:
            current = look()
            live.update(Text("\n".join(_lines(current, metric_names))), refresh=True)
            if current.done:
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


def _lines(current: "Status", metric_names: list[str]) -> list[str]:
    from ...results.status import quoted
    from ..progress import duration

    counts, rate, left = current.counts, current.trials_per_hour, current.hours_left
    speed, volume = current.tokens_per_second, current.hypervolume
    best = f"best {metric_names[0]}" if len(metric_names) == 1 else "hypervolume"
    facts = {
        "study": current.study,
        "complete": f"{counts['complete']} of {current.budget}  {_bar(current)}",
        **({"stopped early": counts["pruned"]} if counts["pruned"] else {}),
        "running": f"{counts['running']} ({current.workers} workers alive)",
        "waiting": counts["waiting"],
        "failed": counts["fail"],
        "trials per hour": "-" if rate is None else f"{rate:,.{0 if rate >= 10 else 1}f}",
        "time left": "-" if left is None else duration(3600 * left),
        "generated tokens": f"{current.generated_tokens:,}",
        "tokens per second": "-" if speed is None else f"{speed:,.0f}",
        best: "-" if volume is None else f"{volume:.3f} (as measured)",
    }
    facts |= {title: amount for title, amount in quoted(current.price)}
    if current.ended is not None:
        facts["ended"] = current.ended
    lines = [f"{key:<18} {value}" for key, value in facts.items()]
    lines += [
        f"  trial {trial.number:<4} {trial.worker}  for {trial.seconds:.0f} s, last heartbeat "
        f"{trial.silence:.0f} s ago"
        for trial in current.running
    ]
    failures = current.failures[-_SHOWN_FAILURES:]
    return lines + [
        f"  trial {number:<4} FAIL: {_in_short(reason)}" for number, reason in failures
    ]


def _in_short(reason: str) -> str:
    """Return a reason's beginning in one line; `--format json` has it whole."""
    return textwrap.shorten(reason, _REASON, placeholder=" ...")


def _bar(current: "Status") -> str:
    done = _BAR * current.n_measured // max(1, current.budget)
    return "█" * done + "░" * (_BAR - done)
