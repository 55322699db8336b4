"""Interruptions that Python would drop."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import Interrupted


@contextmanager
def never_dropped(before_again: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Raise Ctrl-C and SIGTERM again where Python would print and forget them.

    What a signal's handler raises in a destructor or in a weak reference's callback, of which
    libraries run thousands, never reaches the program. Inside the block such an exception stands
    for its signal, which comes again as soon as the callback is over.

    Args:
        before_again: Called before the signal comes again.
    """
    previous = sys.unraisablehook

    def ask_again(unraisable: Any) -> None:
        number = _SIGNALS.get(unraisable.exc_type)
        if number is None:
            previous(unraisable)
            return
        before_again()
        # Later, by another thread: here, it would be raised within this hook and dropped again.
        main = threading.main_thread().ident
        threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, (main, number)).start()

    sys.unraisablehook = ask_again
    try:
        yield
    finally:
        sys.unraisablehook = previous


_AGAIN_SECONDS = 0.01
_SIGNALS = {KeyboardInterrupt: signal.SIGINT, Interrupted: signal.SIGTERM}
