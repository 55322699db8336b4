"""Workers on a simulated clock: how much of their time do they evaluate?"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Use:
    """What became of the workers' time.

    Args:
        utilisation: Share of all workers' time that was evaluation, up to the moment when the
            last candidate was claimed; after that nobody can be kept busy.
        overall: The same up to the end of the last evaluation.
        waiting: Mean seconds that a worker waited for the lock and its proposal.
    """

    utilisation: float
    overall: float
    waiting: float


def asynchronous(
    n_workers: int, times: Sequence[float], held: Callable[[int], float], start: float = 0.0
) -> Use:
    """Simulate workers that each claim their next candidate under one lock.

    Args:
        n_workers: All free at first.
        times: Seconds of every evaluation, in the order of claims.
        held: Number of the claim -> seconds for which it holds the lock.
        start: Seconds over which the workers come up one after the other.
    """
    free = [(start * index / n_workers, index) for index in range(n_workers)]
    heapq.heapify(free)
    lock_free, waited, spans = 0.0, 0.0, []
    for number, seconds in enumerate(times):
        asked, worker = heapq.heappop(free)
        lock_free = max(asked, lock_free) + held(number)
        waited += lock_free - asked
        spans.append((lock_free, lock_free + seconds))
        heapq.heappush(free, (lock_free + seconds, worker))
    return _use(n_workers, spans, waited)


def synchronous(n_workers: int, times: Sequence[float], held: Callable[[int], float]) -> Use:
    """Simulate batches: all workers wait for the slowest, then get their candidates together."""
    now, waited, spans = 0.0, 0.0, []
    for first in range(0, len(times), n_workers):
        batch = times[first : first + n_workers]
        pause = sum(held(first + index) for index in range(len(batch)))
        now += pause
        waited += pause * len(batch)
        spans += [(now, now + seconds) for seconds in batch]
        now += max(batch)
    return _use(n_workers, spans, waited)


def _use(n_workers: int, spans: Sequence[tuple[float, float]], waited: float) -> Use:
    last_claim = max(begin for begin, _ in spans)
    end = max(finish for _, finish in spans)
    busy = sum(min(finish, last_claim) - begin for begin, finish in spans)
    overall = sum(finish - begin for begin, finish in spans)
    return Use(busy / (n_workers * last_claim), overall / (n_workers * end), waited / len(spans))


def evaluation_times(
    n: int, mean: float, variation: float, rng: np.random.Generator
) -> list[float]:
    """Draw log-normal evaluation times, in seconds.

    Args:
        n: How many.
        mean: Seconds.
        variation: Coefficient of variation.
        rng: Random numbers.
    """
    sigma = np.sqrt(np.log1p(variation**2))
    times: list[float] = rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, n).tolist()
    return times
