"""Programs that a model wrote, run against tests: HumanEval's shape, confined."""

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import IO

from ....errors import EvaluationError
from .fences import blocks

_SANDBOX = Path(__file__).with_name("sandbox.py")
_SECONDS, _PATIENCE, _MEMORY = 10, 60.0, 1 << 30
# Bytes that are read of what a program says, and of why it was not run.
_WORD, _REASON = 64, 400
_LANGUAGES = ("", "python", "py", "python3", "py3")


def passes_tests(
    answer: str, reference: str, seconds: int = _SECONDS, patience: float = _PATIENCE
) -> bool:
    """Whether the program in an answer runs through the tests, the reference, without an error.

    The program is the answer's last block that Markdown fences as Python, or as no language, or
    all of the answer. It runs in a process without network, that can write no file, start no
    process and signal none, with limits of time and memory. Ending early counts as failing.

    Args:
        answer: Of the model.
        reference: Python that raises where the program is wrong, e.g. `assert f(2) == 4`.
        seconds: Of CPU time.
        patience: Seconds by the clock.

    Raises:
        EvaluationError: If this machine cannot confine a program.
    """
    word = secrets.token_hex(16)
    program = f"{word}\n{_program(answer)}\n{word}\n{reference}\n"
    said, errors = _run(program.encode("utf-8", "replace"), seconds, patience)
    if errors.startswith(b"no sandbox"):
        raise EvaluationError(
            "The scorer 'unit_tests' runs programs of models in a sandbox or not at all, but "
            f"there is {errors.decode()}."
        )
    return said == word.encode()


def _program(answer: str) -> str:
    found = blocks(answer, _LANGUAGES)
    if not found:
        return answer
    indented = found[-1].lstrip("\n")[:1] in (" ", "\t")  # as in a list
    return textwrap.dedent(found[-1]) if indented else found[-1]


def _run(program: bytes, seconds: int, patience: float) -> tuple[bytes, bytes]:
    """Return what a program says, and why it was not run, if so."""
    with subprocess.Popen(
        [sys.executable, "-I", "-B", str(_SANDBOX), str(seconds), str(_MEMORY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": os.defpath, "OMP_NUM_THREADS": "1"},
        cwd="/",
        start_new_session=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stderr is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(program)
            said = _said(process.stdout, time.monotonic() + patience)
        finally:
            _end(process)
        return said, process.stderr.read(_REASON)


def _said(pipe: IO[bytes], deadline: float) -> bytes:
    """Return what a program says until it ends, or says more than the word; nothing if late."""
    said, poll = b"", select.poll()
    poll.register(pipe, select.POLLIN)
    while len(said) <= _WORD:
        if not poll.poll(1000 * max(0.0, deadline - time.monotonic())):
            return b""
        part = os.read(pipe.fileno(), _WORD)
        if not part:
            break
        said += part
    return said


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a program and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
