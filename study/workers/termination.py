"""SIGTERM, where it does no harm."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Self

from ...errors import Interrupted
from ..interruption import never_dropped

__all__ = ["Interrupted", "Termination", "undisturbed"]


class Termination:
    """Turns SIGTERM into `Interrupted`, at once or at the next place that allows it.

    Between a claim and its evaluation, or within a delivery, an exception from nowhere could lose
    what has just been written; there the signal waits. A context manager, for the main thread.
    """

    def __init__(self) -> None:
        self._asked = self._now = False
        self._installed = ExitStack()

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            previous = signal.signal(signal.SIGTERM, self._handle)
            self._installed.callback(signal.signal, signal.SIGTERM, previous)
            self._installed.enter_context(never_dropped(self._allow_again))
        return self

    def __exit__(self, *error: object) -> None:
        self._installed.close()

    def _allow_again(self) -> None:
        if self._asked:  # what was dropped may have been Ctrl-C
            self._now = True

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if self._now:
            self._now = False  # once: what follows is not to be interrupted again
            raise Interrupted

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise `Interrupted` inside the block as soon as the signal comes, or has come."""
        if self._asked:
            raise Interrupted
        self._now = True
        try:
            yield
        finally:
            self._now = False

    def heed(self) -> None:
        """Raise `Interrupted` if the signal has come."""
        with self.at_once():
            pass

    def sleep(self, seconds: float) -> None:
        """Sleep, but for the signal."""
        with self.at_once():
            time.sleep(seconds)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ignore Ctrl-C inside the block, such as a second one while a trial is given back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
