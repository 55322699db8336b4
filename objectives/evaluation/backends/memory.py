"""How many rows a device has memory for: a number that was given, or one found by trying."""

import gc
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch

from .likelihood import Window

logger = logging.getLogger(__name__)

BatchSize = int | Literal["auto"]
# What is tried first where nothing was given: on a GPU, and elsewhere.
_FIRST_ON_GPU, _FIRST = 256, 64
# How the CPU's allocator, which has no exception of its own, says that memory is short.
_CPU_ALLOCATOR = "DefaultCPUAllocator"

_Window = TypeVar("_Window")
_Result = TypeVar("_Result")


def tried_first(device: str | None = None) -> int:
    """Return how many rows `auto` tries first.

    Args:
        device: A torch device. Defaults to None: a GPU where there is one.
    """
    on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
    return _FIRST_ON_GPU if on_gpu else _FIRST


class Room:
    """Rows that are worked on together; fewer, from the first lack of memory on.

    What is computed does not depend on the number, as far as arithmetic does not.

    Args:
        asked: A number, which stays, or `auto`.
        device: A torch device.
    """

    def __init__(self, asked: BatchSize, device: str) -> None:
        self.n = asked if asked != "auto" else tried_first(device)
        self._is_found = asked == "auto"

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Work with `n` rows; where memory is short, halve `n` and end the block early.

        Raises:
            torch.OutOfMemoryError: If the number was given, or one row is too many.
        """
        try:
            yield
            return
        except RuntimeError as error:
            if not _is_short(error) or not self._is_found or self.n == 1:
                raise
            traceback.clear_frames(error.__traceback__)  # they hold what is to be freed
        self.n //= 2
        logger.warning("memory is short: %d answers together from now on", self.n)
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def through(
        self,
        asked: Sequence[_Window],
        run: Callable[[Sequence[_Window]], Iterator[tuple[_Window, _Result]]],
    ) -> Iterator[tuple[_Window, _Result]]:
        """Yield what `run` yields of every window, each once, however often memory is short."""
        left = list(asked)
        while left:
            done: set[int] = set()
            with self.trying():
                for window, result in run(left):
                    done.add(id(window))
                    yield window, result
            left = [window for window in left if id(window) not in done]

    def joined(
        self,
        asked: Sequence[Window],
        n: int,
        run: Callable[[Sequence[Window], int], Iterator[tuple[Window, _Result]]],
        join: Callable[[Sequence[_Result]], _Result],
        finished: Callable[[int, _Result], None] | None,
    ) -> list[_Result]:
        """Return what the windows of each of `n` texts say together.

        Args:
            asked: All windows.
            n: Texts.
            run: From windows and a number of rows to what each window says.
            join: From what a text's windows say to what the text says.
            finished: Called with each text once, as soon as its last window is read.
        """
        parts: list[list[_Result]] = [[] for _ in range(n)]
        expected = Counter(window.pair for window in asked)
        with torch.inference_mode():
            for window, part in self.through(asked, lambda left: run(left, self.n)):
                parts[window.pair].append(part)
                if finished is not None and len(parts[window.pair]) == expected[window.pair]:
                    finished(window.pair, join(parts[window.pair]))
        return [join(own) for own in parts]


def _is_short(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or _CPU_ALLOCATOR in str(error)
