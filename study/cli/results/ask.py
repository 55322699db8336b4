"""`mergefront ask`."""

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import StudyError
from ..app import RESULTS, SpecArgument, StorageOption, command, read_spec

if TYPE_CHECKING:
    from ....objectives import MergeObjective


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
    """Put questions to one trial's model or several; weights are swapped in place between them.

    Reads one question per line, from the terminal or a pipe. Every question stands for itself: the
    models are asked as in the study, without what was said before.

    Example: mergefront ask examples/demo.yaml --trial 0 --trial 51
    """
    from ...opening import open_inputs
    from ...results.export import trial_of
    from ...run import devices_of, make_objective
    from ...seeding import check_same_study
    from ...storage.connection import load_study

    parsed = read_spec(spec, storage)
    study, inputs = load_study(parsed), open_inputs(parsed)
    check_same_study(study, inputs)
    weights = {n: inputs.plan.group_weights(trial_of(study, n).params) for n in trial}
    with devices_of(parsed) as devices:  # a running study's workers keep theirs
        objective = make_objective(inputs, devices=devices)
        try:
            _converse(objective, weights, max_new_tokens)
        finally:
            objective.backend.close()


def _converse(
    objective: "MergeObjective",
    weights: Mapping[int, Mapping[str, Sequence[float]]],
    max_new_tokens: int | None,
) -> None:
    length = max_new_tokens or objective.sampling.max_new_tokens
    sampling = dataclasses.replace(objective.sampling, max_new_tokens=length, repeats=1)
    seeds = [sampling.seed] if sampling.is_random else []
    for question in _questions():
        for number, groups in weights.items():
            objective.backend.apply(groups)
            arguments = ([question], sampling, lambda index, completion: None)
            (answer,) = objective.backend.generate(*arguments, *([seeds] if seeds else []))
            cut = ", cut at the limit" if answer.finish_reason == "length" else ""
            typer.echo(f"trial {number} ({answer.n_tokens} tokens{cut}): {answer.text}")


def _questions() -> Iterator[str]:
    """Yield lines of stdin; on a terminal each is asked for, and an empty one is the end.

    Raises:
        StudyError: If there is none.
    """
    if sys.stdin.isatty():
        while question := typer.prompt("question", default="", show_default=False, err=True):
            yield question
        return
    lines = [line.strip() for line in sys.stdin if line.strip()]
    if not lines:
        raise StudyError("There is no question: write one per line to standard input.")
    yield from lines
