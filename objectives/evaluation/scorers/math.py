"""Mathematical answers, compared by value rather than by spelling."""

import functools
import importlib.util
from pathlib import Path

from ....errors import MissingExtraError
from .deadline import ScoringProcess


def math_equal(answer: str, reference: str) -> bool:
    r"""Whether an answer's last expression equals the reference, by `math-verify`.

    Expressions are read from LaTeX, `\boxed{...}` first, or as plain numbers: `0.5` equals
    `\frac{1}{2}`. What cannot be evaluated in seconds is wrong.

    Raises:
        MissingExtraError: If math-verify is not installed.
    """
    check_installed()
    return bool(_process()(answer, reference))


def check_installed() -> None:
    """Check that math-verify is there.

    Raises:
        MissingExtraError: If it is not.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise MissingExtraError(
            "The scorer 'math' needs math-verify; run `pip install 'mergefront[eval]'`."
        )


@functools.cache
def _process() -> ScoringProcess:
    return ScoringProcess(f"{Path(__file__).with_name('equality.py')}:equal")
