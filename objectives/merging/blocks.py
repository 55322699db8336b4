"""Contiguous blocks of similar layers, by BAMBO's dynamic programme."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# BAMBO's default weight of balanced sums beside homogeneous blocks.
BALANCE = 0.005


def find_blocks(
    values: Sequence[float], n_blocks: int, balance: float = BALANCE
) -> tuple[int, ...]:
    """Return the first layer of each block of the optimal partition.

    The cost of a block is the sum of squared deviations from its mean, plus `balance` times the
    squared deviation of its sum from a fair share (the hybrid partition of BAMBO; `balance` 0 is
    Fisher-Jenks). Values are first scaled to [0, 1].

    Args:
        values: One per layer: how far fine-tuning moved it.
        n_blocks: Number of blocks; as many as layers or more gives one per layer.
        balance: At least 0.
    """
    n = len(values)
    if n_blocks >= n:
        return tuple(range(n))
    cost = _block_costs(np.asarray(values, dtype=float), n_blocks, balance)
    best = np.full((n_blocks + 1, n + 1), np.inf)  # blocks x layers covered
    best[0, 0] = 0.0
    start = np.zeros((n_blocks + 1, n + 1), dtype=np.int64)
    for k in range(1, n_blocks + 1):
        for end in range(k, n + 1):
            candidates = best[k - 1, :end] + cost[:end, end]
            start[k, end] = candidates.argmin()
            best[k, end] = candidates[start[k, end]]
    return _trace(start, n_blocks, n)


def _block_costs(
    values: NDArray[np.float64], n_blocks: int, balance: float
) -> NDArray[np.float64]:
    """Return the cost of a block from layer `i` up to, not including, layer `j`."""
    span = float(values.max() - values.min())
    scaled = (values - values.min()) / span if span > 0 else np.zeros_like(values)
    n, fair = len(scaled), scaled.sum() / n_blocks
    cost = np.full((n + 1, n + 1), np.inf)
    for i in range(n):
        for j in range(i + 1, n + 1):
            block = scaled[i:j]
            spread = float(((block - block.mean()) ** 2).sum())
            cost[i, j] = spread + balance * float(block.sum() - fair) ** 2
    return cost


def _trace(start: NDArray[np.int64], n_blocks: int, n: int) -> tuple[int, ...]:
    """Follow the choices back from the last layer."""
    starts = [n]
    for k in range(n_blocks, 0, -1):
        starts.append(int(start[k, starts[-1]]))
    return tuple(starts[:0:-1])
