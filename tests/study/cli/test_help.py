"""Help, version and completion: what is asked before anything is known."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from command import invoke
from mergefront import __version__
from mergefront.study.cli import app

COMMANDS = [command.name or "" for command in app.registered_commands]


def test_help_comes_at_once() -> None:
    def seconds() -> float:
        """CPU time: what else runs on this machine does not count."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        line = [sys.executable, "-m", "mergefront", "--help"]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.5


def test_the_version() -> None:
    assert invoke("--version").stdout == f"mergefront {__version__}\n"


def test_commands_are_listed_in_groups_with_their_whole_summaries() -> None:
    shown = invoke("-h").stdout
    for heading in ("Search", "Look and choose", "Models", "Research"):
        assert f"─ {heading} " in shown
    words = " ".join(re.sub(r"[│╭╰─╮╯]", " ", shown).split())
    for command in app.registered_commands:
        assert command.callback is not None
        summary = (command.callback.__doc__ or "").split("\n\n")[0]
        assert " ".join(summary.split()) in words
    assert "…" not in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_for(name: str) -> None:
    from typer.main import get_command

    (parameters,) = [c.params for n, c in get_command(app).commands.items() if n == name]  # type: ignore[attr-defined]
    for parameter in parameters:
        text = parameter.help or ""
        assert len(text.split()) >= 3, f"{name} {parameter.name}: {text!r}"
        assert text[0].isupper() or text[0] == "`", text
        assert not text.startswith(("Of ", "For ")), text


def test_the_shell_completes_commands() -> None:
    asked = {"_MERGEFRONT_COMPLETE": "complete_bash", "COMP_WORDS": "mergefront val"}
    shown = subprocess.run(
        [Path(sys.executable).with_name("mergefront")],
        capture_output=True,
        text=True,
        env={**os.environ, **asked, "COMP_CWORD": "1"},
    )
    assert shown.stdout.split() == ["validate"]
