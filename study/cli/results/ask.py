"""`mergefront ask`."""

import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import EvaluationError, StudyError
from ..app import RESULTS, SpecArgument, StorageOption, command, prompt, read_spec

if TYPE_CHECKING:
    from ....objectives.evaluation import Completion, Sampling
    from ...spec.inputs import StudyInputs
    from ..dialogue import Dialogue

# Switches of reasoning models are said to them, not obeyed.
_COMMAND = re.compile(r"^/(?!(?:no_)?think\b)(\w+)(?:\s+(.*))?$")
_COMMANDS = "`/trial N [M]`: talk to other trials, `/reset`: forget what was said"
# Columns of a terminal from which on two answers stand side by side.
_WIDE = 100


@command("ask", panel=RESULTS)
def ask(
    spec: SpecArgument,
    trial: Annotated[
        list[int],
        typer.Option("--trial", metavar="N", help="Who answers. Give it twice to compare two."),
    ],
    max_new_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-new-tokens", min=1, metavar="N", help="Longest answer, instead of the spec's."
        ),
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Talk to one trial's model, or to several side by side; weights are swapped in place.

    Reads one message per line, from the terminal or a pipe; each model remembers its own
    conversation, as far as its chat template shows it. `/reset` begins anew, `/trial N` goes on
    with another model; an empty line ends it.

    Example: mergefront ask examples/demo.yaml --trial 0 --trial 51
    """
    from ....objectives.evaluation.backends.chat import Chat
    from ...opening import open_inputs
    from ...results.export import trial_of
    from ...run import devices_of, make_objective
    from ...seeding import check_same_study
    from ...storage.connection import load_study
    from ..dialogue import Dialogue

    parsed = read_spec(spec, storage)
    study, inputs = load_study(parsed), open_inputs(parsed)
    check_same_study(study, inputs)
    for number in trial:
        trial_of(study, number)
    remembers = Chat.of(inputs.models).remembers
    if not remembers:
        typer.echo("The chat template writes the last message: each stands for itself.", err=True)
    with devices_of(parsed) as devices:  # a running study's workers keep theirs
        objective = make_objective(inputs, devices=devices)
        dialogue = Dialogue(
            objective,
            _sampling(inputs, max_new_tokens),
            lambda number: inputs.plan.group_weights(trial_of(study, number).params),
            remembers,
        )
        try:
            _converse(dialogue, list(dict.fromkeys(trial)))
        finally:
            objective.backend.close()


def _sampling(inputs: "StudyInputs", max_new_tokens: int | None) -> "Sampling":
    length = max_new_tokens or inputs.sampling.max_new_tokens
    return dataclasses.replace(inputs.sampling, max_new_tokens=length, repeats=1)


def _converse(dialogue: "Dialogue", numbers: list[int]) -> None:
    for line in _lines():
        try:
            if (order := _COMMAND.match(line)) is not None:
                numbers = _obey(dialogue, numbers, order[1], order[2] or "")
            else:
                _answer(dialogue, numbers, line)
        except (EvaluationError, StudyError) as error:
            typer.echo(f"Error: {error}", err=True)  # the conversation goes on


def _answer(dialogue: "Dialogue", numbers: list[int], line: str) -> None:
    answers: list[Completion] = []
    try:
        for number in numbers:
            answers.append(dialogue.ask(number, line))
    finally:  # one that fails takes no other's answer away
        if answers:
            _print(numbers[: len(answers)], answers)


def _obey(dialogue: "Dialogue", numbers: list[int], order: str, rest: str) -> list[int]:
    """Follow a command; return who answers from now on.

    Raises:
        StudyError: If it is none.
    """
    chosen = rest.split()
    if order == "reset" and not chosen:
        dialogue.reset()
        return numbers
    if order == "trial" and chosen and all(text.isdecimal() for text in chosen):
        wanted = list(dict.fromkeys(map(int, chosen)))
        for number in wanted:
            dialogue.check(number)
        return wanted
    raise StudyError(f"/{order} {rest} is no command; there are {_COMMANDS}.")


def _print(numbers: Sequence[int], answers: "Sequence[Completion]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heads = [_head(*pair) for pair in zip(numbers, answers, strict=True)]
    console = Console(highlight=False)
    if not (console.is_terminal and len(answers) == 2 and console.width >= _WIDE):
        for head, answer in zip(heads, answers, strict=True):
            typer.echo(f"{head}: {answer.text}")
        return
    table = Table.grid(padding=(0, 3), expand=True)
    for _ in answers:
        table.add_column(ratio=1)
    table.add_row(*heads, style="bold")
    table.add_row(*(Text(answer.text) for answer in answers))
    console.print(table)


def _head(number: int, answer: "Completion") -> str:
    cut = ", cut at the limit" if answer.finish_reason == "length" else ""
    return f"trial {number} ({answer.n_tokens} tokens{cut})"


def _lines() -> Iterator[str]:
    """Yield lines of stdin; on a terminal each is asked for, and an empty one is the end.

    Raises:
        StudyError: If there is none.
    """
    if sys.stdin.isatty():
        typer.echo(f"{_COMMANDS}; an empty line ends it.", err=True)
        try:
            while line := prompt("you", default="", show_default=False).strip():
                yield line
        except typer.Abort:  # Ctrl-D
            typer.echo(err=True)
        return
    asked = False
    for line in sys.stdin:
        if line.strip():
            yield line.strip()
            asked = True
    if not asked:
        raise StudyError("There is no question: write one per line to standard input.")
