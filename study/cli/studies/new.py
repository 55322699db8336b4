"""`mergefront new`, and what `mergefront run BASE EXPERT` shares with it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....errors import SpecError
from ..app import STUDY, command, prompt
from ..next_steps import say_next

if TYPE_CHECKING:
    from ...spec.draft import Draft

NOTHING: list[str] = []
TaskOption = Annotated[
    list[str],
    typer.Option(
        "--task",
        metavar="TASK",
        help="With BASE and EXPERT: questions to answer, a file (FILE.jsonl with a prompt and an "
        "answer per line) or a task of lm-evaluation-harness (gsm8k). May be given several times.",
    ),
]
NameOption = Annotated[
    str,
    typer.Option(
        "--name",
        metavar="NAME",
        help="With BASE and EXPERT: name of the study and of its file, NAME.yaml. Defaults to the "
        "models' names.",
    ),
]
LengthOption = Annotated[
    int | None,
    typer.Option(
        "--max-new-tokens",
        min=1,
        metavar="N",
        help="With BASE and EXPERT: longest answer in tokens; longer answers are cut.",
    ),
]


@command("new", panel=STUDY)
def new(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BASE EXPERT...",
            help="A fast model and one or more strong ones: paths or hub ids. What is missing is "
            "asked for on a terminal.",
            show_default=False,
        ),
    ] = None,
    task: TaskOption = NOTHING,
    name: NameOption = "",
    trials: Annotated[
        int | None,
        typer.Option("--trials", min=1, metavar="N", help="Number of models that are measured."),
    ] = None,
    max_new_tokens: LengthOption = None,
) -> None:
    """Write a commented spec, NAME.yaml, for a study of your own models.

    Example: mergefront new Qwen/Qwen3-4B-Instruct-2507 Qwen/Qwen3-4B-Thinking-2507 --task gsm8k
    """
    base, *experts = models or [""]
    asked = draft_of(
        base or _ask("Fast model (path or hub id)"),
        experts or _ask("Strong model (several: separated by spaces)").split(),
        task or _ask("Questions (FILE.jsonl, or a task of lm-evaluation-harness)").split(),
        name,
        trials,
        max_new_tokens,
    )
    path = write(asked)
    say_next(path, None, [("run --dry-run", "check everything"), ("run", "search")])


def draft_of(
    base: str,
    experts: list[str],
    tasks: list[str],
    name: str,
    trials: int | None,
    max_new_tokens: int | None,
) -> "Draft":
    """Return a draft with defaults for what is not given.

    Raises:
        SpecError: If there are no tasks.
    """
    from ...spec.draft import DEFAULT_TRIALS, Draft, longest_answer

    if not tasks:
        raise SpecError(
            "BASE and EXPERT need questions: add `--task FILE.jsonl`, or the name of a task of "
            "lm-evaluation-harness, such as `--task gsm8k`."
        )
    return Draft(
        base,
        experts,
        tasks,
        name,
        trials or DEFAULT_TRIALS,
        max_new_tokens or longest_answer(base),
    )


def write(draft: "Draft") -> Path:
    """Write NAME.yaml into the working directory, say so, and return its path."""
    is_new = draft.write(draft.path)
    typer.echo(f"{'wrote' if is_new else 'found'} {draft.path}", err=True)
    return draft.path


def _ask(question: str) -> str:
    if not sys.stdin.isatty():
        raise SpecError(
            "`mergefront new` needs BASE, EXPERT and `--task` where there is no terminal to ask."
        )
    return prompt(question)
