"""The command line: one module a command, each a thin layer over the library."""

from . import demo, export, front, importance, init, merge, report, run, status, validate, worker  # noqa: F401 - registers
from ._app import app

__all__ = ["app"]
