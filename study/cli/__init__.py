"""The command line: one module a command, each a thin layer over the library."""

from . import (  # noqa: F401 - registers
    compare,
    dashboard,
    demo,
    export,
    front,
    importance,
    init,
    merge,
    report,
    run,
    select,
    status,
    validate,
    worker,
)
from ._app import app

__all__ = ["app"]
