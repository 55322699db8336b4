"""`mergefront answers`."""

from typing import Annotated, Any

import typer

from ....errors import StudyError
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

_NOTHING: list[int] = []
_SHOWN = 300


@command("answers", panel=RESULTS)
def answers(
    spec: SpecArgument,
    more: Annotated[
        list[int] | None,
        typer.Argument(metavar="[N]...", help="Further trials to compare.", show_default=False),
    ] = None,
    trials: Annotated[
        list[int],
        typer.Option("--trials", metavar="N", help="Trials whose answers are compared: 0 51."),
    ] = _NOTHING,
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="Number of questions shown.")
    ] = 10,
    storage: StorageOption = None,
    format: FormatOption = Format.TABLE,
) -> None:
    """Compare the answers of trials question by question, with reference, tokens and score.

    Questions that the trials answered with different scores come first.

    Example: mergefront answers examples/demo.yaml --trials 0 51
    """
    from ...storage.artifacts import compared, read_answers
    from ...storage.connection import artifact_store, load_study

    numbers = list(dict.fromkeys([*trials, *(more or [])]))
    if not numbers:
        raise StudyError("Name the trials to compare, e.g. `--trials 0 51`.")
    parsed = read_spec(spec, storage)
    study, store = load_study(parsed), artifact_store(parsed)
    rows = compared({number: read_answers(study, store, number) for number in numbers})
    if format is Format.JSON:
        print_json({"study": study.study_name, "trials": numbers, "questions": rows[:limit]})
        return
    for row in rows[:limit]:
        _print(row)
    typer.echo(f"{min(limit, len(rows))} of {len(rows)} questions")


def _print(row: dict[str, Any]) -> None:
    typer.echo(f"{row['id']}: {_short(row['question'])}")
    typer.echo(f"  reference   {_short(row['reference'])}")
    for number, given in row["answers"].items():
        for answer in given:
            cut = ", cut at the limit" if answer["finish_reason"] == "length" else ""
            head = f"score {answer['score']:g}, {answer['n_tokens']} tokens{cut}"
            typer.echo(f"  trial {number:<5} {head}: {_short(answer['text'])}")
    typer.echo()


def _short(text: str | None) -> str:
    """Return a text on one line, its middle left out where it is long: ends hold the answers."""
    line = " ".join((text or "").split())
    half = _SHOWN // 2
    return line if len(line) <= _SHOWN else f"{line[:half]} ... {line[-half:]}"
