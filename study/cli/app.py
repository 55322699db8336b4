"""The application, the options that commands share, and how errors end."""

import errno
import functools
import inspect
import io
import json
import logging
import signal
import sys
import warnings
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..._version import __version__
from ...errors import STOPPED, Interrupted, MergefrontError
from ..interruption import never_dropped
from . import json_lines
from .json_lines import LogFormat

if TYPE_CHECKING:
    from ..spec.study_spec import StudySpec

# What a file's writing ends in where the disk, a quota or a limit allows no more.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)

# The headings of `mergefront --help`.
STUDY, RESULTS, MODELS, RESEARCH = "Search", "Look and choose", "Models", "Research"

app = typer.Typer(
    name="mergefront",
    help="Find the Pareto front of merged language models.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mergefront {__version__}")
        raise typer.Exit


@app.callback(epilog="`mergefront demo` shows everything on two small models, in 3 minutes.")
def _main(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            callback=_print_version,
            is_eager=True,
            help="Print the version, and end.",
        ),
    ] = False,
) -> None:
    """Find the Pareto front of merged language models.

    Blend a fast model with a strong one, layer by layer, and get the best compromises.
    """


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


SpecArgument = Annotated[
    Path, typer.Argument(metavar="SPEC", help="The study's specification, a YAML file.")
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URL",
        envvar="MERGEFRONT_STORAGE",
        help="The study's database, instead of the spec's `study.storage`: "
        "sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
    ),
]
FormatOption = Annotated[
    Format,
    typer.Option(
        "--format", metavar="KIND", help="`table` to read, or `json`: one document on stdout."
    ),
]
TrialsOption = Annotated[
    int | None,
    typer.Option(
        "--trials",
        min=1,
        metavar="N",
        help="Measured trials that the study shall have at the end, instead of `study.trials`.",
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="New or empty directory to write into.")
]
LogFormatOption = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        metavar="KIND",
        envvar="MERGEFRONT_LOG_FORMAT",
        callback=json_lines.use,
        help="`text` to read, or `json`: one object a line on stderr.",
    ),
]
MetricsOption = Annotated[
    str,
    typer.Option(
        "--metrics",
        metavar="[HOST:]PORT",
        envvar="MERGEFRONT_METRICS",
        help="Serve metrics for Prometheus there; on 127.0.0.1 unless a host is given.",
    ),
]
_DebugOption = Annotated[
    bool, typer.Option("--debug", metavar="", help="Show tracebacks of errors.")
]
_Function = Callable[..., None]


def command(name: str, panel: str, stopped: int = STOPPED) -> Callable[[_Function], _Function]:
    """Register a function as a command, with `--debug` and errors as one line.

    Exit codes: 1 for errors that the user can fix, 2 for wrong usage, 130 after Ctrl-C, and after
    SIGTERM `stopped` (the trial in hand has been queued again).

    Args:
        name: Of the command.
        panel: Heading under which `mergefront --help` lists it.
        stopped: Exit code after SIGTERM.
    """

    def register(function: _Function) -> _Function:
        @functools.wraps(function)
        def wrapped(*arguments: Any, debug: bool = False, **options: Any) -> None:
            _run(functools.partial(function, *arguments, **options), debug, stopped)

        signature = inspect.signature(function)
        option = inspect.Parameter(
            "debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=_DebugOption
        )
        parameters = [*signature.parameters.values(), option]
        wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {**function.__annotations__, "debug": _DebugOption}
        app.command(name, rich_help_panel=panel)(wrapped)
        return wrapped

    return register


def _run(function: Callable[[], None], debug: bool, stopped: int) -> None:
    # Also while models load, and in commands that are no workers.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    _write_any_character()
    try:
        quiet_libraries()
        with never_dropped():
            function()
    except KeyboardInterrupt:
        _say("Stopped. Start it again to resume.", logging.INFO)
        raise typer.Exit(130) from None
    except Interrupted:
        raise typer.Exit(stopped) from None
    except Exception as error:
        if debug or (text := _one_line(error)) is None:
            raise
        _say(text, logging.ERROR)
        raise typer.Exit(1) from error
    finally:
        signal.signal(signal.SIGTERM, previous)


def _write_any_character() -> None:
    """Write `?` for a character that the terminal's encoding does not have, such as `±`."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def _say(text: str, level: int) -> None:
    if json_lines.in_use():
        logging.getLogger(json_lines.WORKER).log(level, text)
    else:
        typer.echo(f"Error: {text}" if level == logging.ERROR else text, err=True)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted


def _one_line(error: Exception) -> str | None:
    """Return what to say about an error that the user can do something about."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MergefrontError):
        return str(error)
    if isinstance(error, SQLAlchemyError | StorageInternalError):
        from ..storage.outages import is_outage, reason_of

        reason = reason_of(error).rstrip(".")
        if is_outage(error):
            return (
                f"The database does not answer: {reason}. Start it again when it does: what was "
                "measured is kept."
            )
        return f"The database refused: {reason}. Check its user's rights and its disk."
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}. Check the path, its rights and its disk."
    if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return f"A file could not be written: {error.strerror}. Make room, and run it again."
    return None


def quiet_libraries() -> None:
    """Leave stderr to our own progress: no load bars, no notices about experimental features."""
    import optuna
    from transformers.utils import logging as transformers_logging

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def prompt(text: str, **options: Any) -> str:
    """Ask for a line on stderr.

    Args:
        text: What is asked.
        **options: Of `typer.prompt`.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        typer.Abort: After Ctrl-D.
    """
    try:
        return str(typer.prompt(text, err=True, **options))
    except typer.Abort as abort:
        # typer makes one of the two; what it was stays behind it.
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def read_spec(path: Path, storage: str | None, trials: int | None = None) -> "StudySpec":
    """Read a spec and apply the command line's overrides."""
    from ..spec.study_spec import StudySpec

    return StudySpec.from_yaml(path).with_overrides(storage, trials)


def print_json(content: object) -> None:
    """Print one JSON document to stdout."""
    typer.echo(json.dumps(content, indent=2))
