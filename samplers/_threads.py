"""Keep small linear algebra on one thread."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block.

    The matrices of a Gaussian process on tens of trials are too small to share; with several
    workers on a host, threads that spin at barriers make a suggestion many times slower
    (Optuna's own sampler does the same: optuna #6753).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
