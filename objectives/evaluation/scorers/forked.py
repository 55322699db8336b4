"""A function of this process that runs in a copy of it, with a deadline.

For scorers that no `module:function` names: a task of lm-eval is data, templates and functions
that only loading it gives, and a copy has all of them at once. There are two copies. The first is
made when a task is loaded, while this process has few threads and no model; it scores nothing, and
makes the second, which does, and another one whenever an answer has ended that.
"""

import contextlib
import gc
import itertools
import json
import logging
import os
import resource
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import torch

from ....errors import EvaluationError
from .server import deadline

logger = logging.getLogger(__name__)

# Of the CPU, for one answer: metrics of the harness have deadlines of 5 seconds of their own.
_SECONDS = 20.0
_PATIENCE = 120.0
_MEMORY = 4 << 30
# How a copy ends that nobody asks any more; whatever else ends it is an answer's doing.
_DONE = 99
# How one ends that could not begin: the next one could not either.
_NO_START = 98


class ForkedScorer:
    """A function that gives a number, called in a copy of this process.

    An answer that takes too long, too much memory, or ends the copy is wrong: its score is 0.

    Args:
        function: From what JSON can hold to a number. What it raises should say whose it is.
        seconds: Of CPU time for one answer.
        patience: Seconds by the clock for one answer.
        memory: Bytes of address space beyond what this process has.
    """

    def __init__(
        self,
        function: Callable[..., float],
        seconds: float = _SECONDS,
        patience: float = _PATIENCE,
        memory: int = _MEMORY,
    ) -> None:
        self._function, self._limits, self._patience = function, (seconds, memory), patience
        self._lock, self._numbers = threading.Lock(), itertools.count()
        self._connection: Connection | None = None
        self._end: Callable[[], object] = lambda: None
        self._copy = 0

    def start(self) -> None:
        """Copy this process as it is now."""
        ours, theirs = Pipe()
        pid = os.fork()
        if pid == 0:
            _keep_scoring(self._function, theirs, *self._limits)
        theirs.close()
        self._connection, self._copy = ours, 0
        self._end = weakref.finalize(self, _end, os.getpid(), pid, ours)

    def __call__(self, *arguments: Any) -> float:
        """Return the score of an answer.

        Raises:
            EvaluationError: If the function raises, with what it says.
        """
        with self._lock:
            reply = self._reply(arguments)
        if reply is None:
            logger.warning("an answer ended its scoring process, or took too long: it counts 0")
            return 0.0
        if "error" in reply:
            raise EvaluationError(reply["error"])
        return float(reply["score"])

    def close(self) -> None:
        """End the copies."""
        self._end()
        self._connection = None

    def _reply(self, arguments: tuple[Any, ...]) -> dict[str, Any] | None:
        """Return what the copy says; None if it ended, or was late."""
        if self._connection is None:
            self.start()
        assert self._connection is not None
        number = next(self._numbers)
        try:
            self._connection.send_bytes(json.dumps([number, arguments]).encode())
            return self._wait(self._connection, number)
        except (EOFError, OSError):  # both copies are gone
            self._check_begun()
            self.close()
            return None

    def _wait(self, connection: Connection, number: int) -> dict[str, Any] | None:
        """Return the verdict of this number.

        A copy says who it is when it starts. One that starts after another took the answer says
        that the answer ended that one.
        """
        begun, late, end = False, False, time.monotonic() + self._patience
        while True:
            if not connection.poll(max(0.0, end - time.monotonic())):
                self._check_begun()
                if late:  # nor does the next copy say anything
                    self.close()
                    return None
                self._late()
                late, end = True, time.monotonic() + self._patience
                continue
            said: dict[str, Any] = json.loads(connection.recv_bytes())
            if "copy" in said:
                self._copy = said["copy"]
                if begun or late:
                    return None
            elif said["number"] == number and not (begun := "begun" in said):
                return said

    def _check_begun(self) -> None:
        """Raise if no copy has ever said who it is: that is no answer's doing."""
        if self._copy == 0:
            self.close()
            raise EvaluationError(
                "the process that scores answers could not be started; is there too little "
                "memory, or a limit of address space (`ulimit -v`)?"
            )

    def _late(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._copy, signal.SIGKILL)


def _end(owner: int, pid: int, connection: Connection) -> None:
    """End both copies; a copy of this process has others' numbers, and leaves them alone."""
    if os.getpid() != owner:
        return
    connection.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _keep_scoring(
    function: Callable[..., float], connection: Connection, seconds: float, memory: int
) -> NoReturn:
    """Be the first copy: make the second, and another one when it ends."""
    status = 1
    try:
        _let_go(connection.fileno())
        while True:
            pid = os.fork()
            if pid == 0:
                _score_all(function, connection, seconds, memory)
            ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if ended in (_DONE, _NO_START):
                status = 0 if ended == _DONE else 1
                break
    finally:
        os._exit(status)


def _let_go(kept: int) -> None:
    """Let go of all that belongs to the process that was copied."""
    os.setpgid(0, 0)  # an interruption from the terminal is that process's
    gc.freeze()  # what it has thrown away is its own to finalize
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.closerange(3, kept)  # locks, sockets, pipes that somebody waits for the end of
    os.closerange(kept + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    sys.stdout = sys.stderr = os.fdopen(1, "w")
    logging.disable()
    torch.set_num_threads(1)  # threads are not copied, and would be waited for


def _score_all(
    function: Callable[..., float], connection: Connection, seconds: float, memory: int
) -> NoReturn:
    """Be the second copy: score until nobody asks."""
    status = _NO_START
    try:
        _limit(memory)
        _say(connection, copy=os.getpid())
        status = 1
        while True:
            number, arguments = json.loads(connection.recv_bytes())
            _say(connection, number=number, begun=True)
            _say(connection, number=number, **_verdict(function, arguments, seconds))
    except (EOFError, ConnectionError):
        os._exit(_DONE)
    finally:
        os._exit(status)


def _limit(memory: int) -> None:
    """Allow this process so much more address space; not more than its own limit allows."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used, hard = _address_space(), resource.getrlimit(resource.RLIMIT_AS)[1]
    if used is None:
        return
    most = used + memory if hard == resource.RLIM_INFINITY else min(used + memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _verdict(
    function: Callable[..., float], arguments: list[Any], seconds: float
) -> dict[str, Any]:
    try:
        with deadline(seconds):
            return {"score": float(function(*arguments))}
    except (MemoryError, RecursionError):
        return {"score": 0.0}
    except Exception as error:  # whatever a metric raises is told, and the next answer is scored
        return {"error": str(error) or type(error).__name__}


def _say(connection: Connection, **content: Any) -> None:
    connection.send_bytes(json.dumps(content).encode())


def _address_space() -> int | None:
    """Return how many bytes this process has, used or not; None where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return None
