"""The command line: thin commands over the library, one module each, in three rooms. Internal.

`studies` creates and runs studies, `results` looks at them and takes models out, `research`
compares methods and chooses what to merge. Nothing of torch or Optuna is imported before a command
runs: help, version and shell completion are immediate.
"""

# isort: off
# In the order in which help lists the commands.
from .app import app
from .studies import demo, new, run, init, worker, status  # noqa: F401 - registers
from .results import (  # noqa: F401 - registers
    front,
    pick,
    answers,
    ask,
    validate,
    report,
    dashboard,
    export,
    merge,
    publish,
    reproduce,
)
from .research import compare, select, importance  # noqa: F401 - registers

# isort: on

__all__ = ["app"]
