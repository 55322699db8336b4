"""Programs that a model wrote, run against tests: HumanEval's shape, confined."""

import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
from pathlib import Path

from ....errors import EvaluationError

_SANDBOX = Path(__file__).with_name("sandbox.py")
_SECONDS, _PATIENCE, _MEMORY = 10, 60.0, 1 << 30
# Answers use names of annotations that their prompt imports.
_OPENING = "from typing import *\n"
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", flags=re.DOTALL)


def passes_tests(
    answer: str, reference: str, seconds: int = _SECONDS, patience: float = _PATIENCE
) -> bool:
    """Whether the program in an answer runs through the tests, the reference, without an error.

    The program is the answer's last block of code that Markdown fences, or all of it. It runs in a
    process without network, that can write no file, start no process and signal none, with limits
    of time and memory. Ending early counts as failing.

    Args:
        answer: Of the model.
        reference: Python that raises where the program is wrong, e.g. `assert f(2) == 4`.
        seconds: Of CPU time.
        patience: Seconds by the clock.

    Raises:
        EvaluationError: If this machine cannot confine a program.
    """
    blocks = _FENCE.findall(answer)
    word = secrets.token_hex(16)
    program = f"{word}\n{_OPENING}{blocks[-1] if blocks else answer}\n\n{reference}\n"
    process = subprocess.Popen(
        [sys.executable, "-I", "-B", str(_SANDBOX), str(seconds), str(_MEMORY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "OMP_NUM_THREADS": "1"},
        cwd="/",
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(program.encode("utf-8", "replace"), patience)
    except subprocess.TimeoutExpired:
        said, errors = b"", b""
    finally:
        _end(process)
    if errors.startswith(b"no sandbox"):
        raise EvaluationError(
            "The scorer 'unit_tests' runs programs of models in a sandbox or not at all, but "
            f"there is {errors.decode()}."
        )
    return said == word.encode()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a program and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
