"""The command line: thin commands over the library, one module each, in three rooms."""

from .app import app
from .research import compare, importance, select  # noqa: F401 - registers
from .results import dashboard, export, front, merge, report, validate  # noqa: F401 - registers
from .studies import demo, init, run, status, worker  # noqa: F401 - registers

__all__ = ["app"]
