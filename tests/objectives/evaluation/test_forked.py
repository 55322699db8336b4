"""Functions that are called in a copy of this process."""

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mergefront.errors import EvaluationError
from mergefront.objectives.evaluation.scorers.forked import ForkedScorer


@pytest.fixture
def scorer() -> Iterator[ForkedScorer]:
    """Calls what it is given, and holds what no file gives back."""
    held = {"answer": 0.25}

    def function(name: str, *arguments: object) -> float:
        if name == "held":
            return held["answer"]
        if name == "pid":
            return float(os.getpid())
        known: dict[str, Callable[..., Any]] = {"sleep": time.sleep, "exit": os._exit, "sum": sum}
        return float(known[name](*arguments) or 0.0)

    made = ForkedScorer(function, patience=3.0)
    yield made
    made.close()


def _is_running(pid: float) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


def _wait_for_end(pid: float) -> None:
    end = time.monotonic() + 20
    while _is_running(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _is_running(pid)


def test_a_copy_has_what_the_process_had(scorer: ForkedScorer) -> None:
    assert scorer("held") == 0.25
    assert scorer("sum", [0.5, 0.25]) == 0.75
    assert scorer("pid") != os.getpid()
    with pytest.raises(EvaluationError, match="unsupported operand"):
        scorer("sum", ["a"])


def test_what_waits_for_ever_is_late(scorer: ForkedScorer) -> None:
    before = scorer("pid")
    start = time.monotonic()
    assert scorer("sleep", 1000) == 0.0
    assert 2.5 < time.monotonic() - start < 30
    assert scorer("held") == 0.25
    assert scorer("pid") != before


def test_a_copy_that_ends_between_two_answers_is_no_answers_fault(scorer: ForkedScorer) -> None:
    os.kill(int(scorer("pid")), signal.SIGKILL)
    assert [scorer("held") for _ in range(3)] == [0.25] * 3


def test_answers_of_many_threads_are_not_mixed(scorer: ForkedScorer) -> None:
    found: dict[int, float] = {}

    def ask(i: int) -> None:
        found[i] = scorer("sum", [i, 0.5]) if i % 10 else scorer("exit", 0)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {i: i + 0.5 if i % 10 else 0.0 for i in range(40)}


def test_copies_end_with_their_scorer() -> None:
    scorer = ForkedScorer(lambda: float(os.getpid()))
    pid = scorer()
    del scorer
    gc.collect()
    _wait_for_end(pid)


_KILLED = """
import os, signal, time
from mergefront.objectives.evaluation.scorers.forked import ForkedScorer

others = [ForkedScorer(lambda: float(os.getpid())) for _ in range(2)]
print(*[int(scorer()) for scorer in others], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_copies_end_with_a_worker_that_is_killed() -> None:
    told = subprocess.run([sys.executable, "-c", _KILLED], capture_output=True, text=True)
    assert told.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in told.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        _wait_for_end(pid)


def test_a_copy_that_cannot_begin_is_an_error_and_no_signal_to_others() -> None:
    code = """
import os, resource, sys
from mergefront.errors import EvaluationError
from mergefront.objectives.evaluation.scorers import forked
forked._limit = lambda memory: 1 / 0
scorer = forked.ForkedScorer(float, patience=3.0)
try:
    scorer(0.5)
except EvaluationError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "could not be started" in done.stdout


def test_a_limit_of_address_space_from_outside_is_kept() -> None:
    code = """
import resource
from mergefront.objectives.evaluation.scorers import forked
used = forked._address_space()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
scorer = forked.ForkedScorer(float, patience=20.0)
print(scorer(0.5))
scorer.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "0.5", done.stderr


def test_a_copy_that_dies_before_it_took_an_answer_hangs_nothing(scorer: ForkedScorer) -> None:
    second = int(scorer("pid"))
    os.kill(second, signal.SIGSTOP)  # it takes the answer neither now nor later
    threading.Timer(0.5, os.kill, (second, signal.SIGKILL)).start()
    begun = time.monotonic()
    assert scorer("held") in (0.0, 0.25)
    assert time.monotonic() - begun < 60
    assert scorer("held") == 0.25
