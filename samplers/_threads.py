"""Keep small linear algebra on one thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# The setting is the process's: the first to come sets it, the last to go restores it.
_lock = threading.Lock()
_inside, _before = 0, 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block.

    The matrices of a Gaussian process on tens of trials are too small to share; with several
    workers on a host, threads that spin at barriers make a suggestion many times slower
    (Optuna's own sampler does the same: optuna #6753).
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _inside, _before
    with _lock:
        if not _inside:
            _before = torch.get_num_threads()
        _inside += 1
        torch.set_num_threads(1)


def _leave() -> None:
    global _inside
    with _lock:
        _inside -= 1
        if not _inside:
            torch.set_num_threads(_before)
