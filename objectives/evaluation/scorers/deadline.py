"""Scorers in a process of their own, with a deadline: no answer can hang or crash a worker.

What a model writes is input from outside. A scorer that evaluates it (`9^{9^{9^{9}}}`) may compute
for ever, take all memory or crash, and no signal interrupts a computation in C.
"""

import json
import logging
import os
import select
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ....errors import EvaluationError

logger = logging.getLogger(__name__)

# Of the CPU, for one answer; the slowest of honest answers takes a tenth of it.
_SECONDS = 5.0
# By the clock, for whatever waits instead of computing, and for a scorer to be imported.
_PATIENCE = 60.0
_MEMORY = 4 << 30
_SERVER = Path(__file__).with_name("server.py")


class ScoringProcess:
    """A scorer, `(answer, reference) -> number`, that runs in a process of its own.

    An answer that takes too long, too much memory, or ends the process is wrong: its score is 0.
    The process is started when first needed, and again after such an answer. A scorer that does so
    whatever it is asked is at fault itself: each process is asked a known question first, with all
    the time that it may take to load what it needs.

    Args:
        target: `module:function`, or `path/of/file.py:function`.
        seconds: Of CPU time for one answer.
        patience: Seconds by the clock for one answer, and for the start.
        memory: Bytes of address space.
        folders: Searched for the module before all others.
        known: Arguments that it must give a score for. Defaults to (): it is not asked.
    """

    def __init__(
        self,
        target: str,
        seconds: float = _SECONDS,
        patience: float = _PATIENCE,
        memory: int = _MEMORY,
        folders: Sequence[Path] = (),
        known: tuple[Any, ...] = (),
    ) -> None:
        self._folders = [str(folder.absolute()) for folder in folders]
        self._command = [sys.executable, "-P", str(_SERVER), target, str(memory)]
        self.target, self._seconds, self._patience = target, seconds, patience
        self._known = known
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        # Hash of the file that holds the scorer, once it was started.
        self.source = ""

    def __call__(self, *arguments: Any) -> float:
        """Return the score of an answer.

        Args:
            arguments: What the scorer takes, as far as JSON can hold it.

        Raises:
            EvaluationError: If the scorer cannot be imported, raises, or gives no score for the
                known arguments.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self.close()  # it ended between two answers, which is no answer's fault
            process = self._process or self._start()
            reply = self._ask(process, arguments, self._seconds)
        if "lost" in reply:
            logger.warning("%s: an answer counts 0: %s", self.target, reply["lost"])
            return 0.0
        return self._score(reply)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _start(self) -> "subprocess.Popen[bytes]":
        # What this process can import, the other one can.
        paths = os.pathsep.join([*self._folders, *(path or os.getcwd() for path in sys.path)])
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": paths},
        )
        weakref.finalize(self, _end, process)
        self._process = process
        reply = self._reply(process)
        if reply is None or "error" in reply:
            self.close()
            self._score(reply or {"error": "it did not start"})
        self.source = "" if reply is None else str(reply.get("source", ""))
        if self._known:
            reply = self._ask(process, self._known, self._patience)
            if "lost" in reply:
                self.close()
                reply = {"error": f"it gives no score for the reference itself: {reply['lost']}"}
            self._score(reply)
        return process

    def _ask(
        self, process: "subprocess.Popen[bytes]", arguments: tuple[Any, ...], seconds: float
    ) -> dict[str, Any]:
        """Return the verdict, or what the answer had too little of; end a process that is late."""
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps([seconds, arguments]).encode() + b"\n")
            process.stdin.flush()
            reply = self._reply(process)
        except BrokenPipeError:
            reply = None
        except BaseException:
            self.close()  # its reply would be taken for the next answer's
            raise
        if reply is None:
            self.close()
            return {"lost": "the process of the scorer ended, or took too long"}
        return reply

    def _reply(self, process: "subprocess.Popen[bytes]") -> dict[str, Any] | None:
        """Return the next line; None if there is none, or not in time."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], self._patience)
        line = process.stdout.readline() if ready else b""
        reply: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return reply

    def _score(self, reply: dict[str, Any]) -> float:
        if "error" in reply:
            raise EvaluationError(
                f"A scorer must give a number for any answer, but {self.target} fails: "
                f"{reply['error']}."
            )
        return float(reply["score"])


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue
