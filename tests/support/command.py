"""The commands, called in this process: a process of their own takes seconds to start."""

from typer.testing import CliRunner, Result

from mergefront.study.cli import app


def invoke(*arguments: object) -> Result:
    """Run one command; its result has `exit_code`, `stdout` and `stderr`."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
