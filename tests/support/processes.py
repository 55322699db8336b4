"""Processes of their own that need not import everything again.

A server that has imported what a worker needs, and done nothing else, forks them. What is tested
of a new interpreter itself is started with `subprocess`.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "mergefront.study.cli",
        "mergefront.study.run",
        "mergefront.study.workers.worker",
        "mergefront.objectives.evaluation.backends.transformers_backend",
        "transformers.models.qwen3.modeling_qwen3",
        "botorch.optim",
        "psycopg2",
    ]
)


class Program:
    """A program's text in a process of its own, with the methods of `subprocess.Popen`.

    Args:
        text: Python; finds `arguments` in `sys.argv[1:]`.
        arguments: Of the program.
        folder: Its working directory.
        streams: What stdout and stderr are appended to. Defaults to (): those of the tests.
    """

    def __init__(
        self,
        text: str,
        *arguments: str,
        folder: Path | None = None,
        streams: tuple[Path, ...] = (),
    ) -> None:
        settings = (text, arguments, str(folder or Path.cwd()), dict(os.environ), streams)
        self._process = CONTEXT.Process(target=_run, args=settings)
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended.

        Raises:
            TimeoutError: If it has not by then.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self.pid} did not end in {timeout} seconds")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def mergefront(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in a process of its own, with these environment variables added."""
    line = [str(argument) for argument in arguments]
    with TemporaryDirectory() as folder:
        streams = (Path(folder, "stdout"), Path(folder, "stderr"))
        settings = (COMMAND, tuple(line), str(Path.cwd()), {**os.environ, **environment}, streams)
        process = CONTEXT.Process(target=_run, args=settings)
        process.start()
        process.join()
        printed = [stream.read_text() for stream in streams]
    assert process.exitcode is not None
    return subprocess.CompletedProcess(line, process.exitcode, *printed)


COMMAND = "import sys; from mergefront.study.cli import app; sys.argv[0] = 'mergefront'; app()"


def _run(
    text: str,
    arguments: tuple[str, ...],
    folder: str,
    environment: Mapping[str, str],
    streams: tuple[Path, ...] = (),
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["-c", *arguments]
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
    exec(compile(text, "<program>", "exec"), {"__name__": "__main__"})
