"""The other side of `ScoringProcess`: scores what comes in on stdin, one JSON line an answer.

Run as a file, with nothing of ours imported: it must start fast, and hold nothing worth losing.
What a scorer prints goes to stderr; verdicts have stdout to themselves.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any


def load(target: str) -> Callable[..., Any]:
    """Return the function that `module:function` or `file.py:function` names."""
    module, _, name = target.rpartition(":")
    if not module.endswith(".py"):
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
        return function
    spec = importlib.util.spec_from_file_location("scorer", module)
    if spec is None or spec.loader is None:
        raise ImportError(f"{module} is no Python file")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    found: Callable[..., Any] = getattr(loaded, name)
    return found


def source_of(scorer: Callable[..., Any]) -> str:
    """Return a hash of the file that holds a scorer; "" if it has none."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(scorer))
        with open(path or "", "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except (OSError, TypeError):
        return ""


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let the kernel end this process if what is done here takes longer.

    The time is the CPU's, so that a busy machine changes no verdict. SIGPROF has no handler: it
    ends code that never returns to the interpreter too, such as a power of large integers.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def judge(scorer: Callable[..., Any], arguments: list[Any], seconds: float) -> dict[str, Any]:
    """Return a scorer's verdict, what it had too little of, or its error."""
    try:
        with deadline(seconds):
            return {"score": float(scorer(*arguments))}
    except (MemoryError, RecursionError) as error:
        return {"lost": type(error).__name__}
    except (Exception, SystemExit) as error:  # is told, and the next answer is scored
        return {"error": f"{type(error).__name__}: {error}"}


def main(target: str, memory: int) -> None:
    """Score until stdin ends; a line is the seconds of CPU time and the scorer's arguments."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        scorer = load(target)
        print(json.dumps({"score": 0.0, "source": source_of(scorer)}), file=out)
    except (Exception, SystemExit) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=out)
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    for line in sys.stdin:
        seconds, arguments = json.loads(line)
        print(json.dumps(judge(scorer, arguments, seconds)), file=out)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
