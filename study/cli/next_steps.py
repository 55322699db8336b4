"""What can be done next, as commands to copy."""

import shlex
from pathlib import Path

import typer


def say_next(spec: Path, storage: str | None, steps: list[tuple[str, str]]) -> None:
    """Print commands to stderr, each with what it is for.

    Args:
        spec: The study's file.
        storage: What was given as `--storage`, which the commands need, too; it is not shown if it
            holds a password.
        steps: Command without SPEC, such as `front`, with options after it; and its purpose.
    """
    from ..storage.urls import holds_secret

    is_shown = storage and not holds_secret(storage)
    given = f" --storage {shlex.quote(str(storage))}" if is_shown else ""
    lines = []
    for step, purpose in steps:
        command, _, options = step.partition(" ")
        shown = f"mergefront {command} {shlex.quote(str(spec))}"
        lines.append((f"{shown}{' ' if options else ''}{options}{given}", purpose))
    width = max(len(line) for line, _ in lines)
    for place, (line, purpose) in enumerate(lines):
        typer.echo(f"{'     ' if place else 'next:'} {line:<{width}}  # {purpose}", err=True)


AFTER_RUN = [
    ("front", "the models that nothing beats"),
    ("validate", "the same models on fresh questions"),
    ("report", "a page with pictures"),
]
