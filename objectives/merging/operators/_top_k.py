"""The k largest of very many numbers, without sorting them."""

import math

import numpy as np
import torch
from torch import Tensor

_CHUNK = 1 << 18
_SAMPLE = 1 << 14
# Standard deviations of the sampled rank between the guess and the bounds around it.
_MARGIN = 5.0


def largest(values: Tensor, k: int) -> Tensor:
    """Return a boolean mask of exactly `k` largest elements; among equals, the first ones.

    A sample brackets the k-th largest value; one pass counts what lies above the bracket and
    collects what lies inside, a few percent of all; the exact threshold is selected among those.
    A bracket that missed is widened to everything, so the result is exact for any data. Costs a
    few passes over memory, where a sort costs dozens.

    Args:
        values: An `n`-dim tensor without NaN.
        k: How many, `0 <= k <= n`.
    """
    n = values.numel()
    if k <= 0 or k >= n:
        return torch.full((n,), k >= n, dtype=torch.bool, device=values.device)
    low, high = _bracket(values, k)
    above, inside = _divide(values, low, high)
    if not above < k <= above + inside.numel():
        above, inside = 0, values
    threshold = inside.kthvalue(inside.numel() - (k - above) + 1).values
    n_equal = k - above - int((inside > threshold).sum())
    return _mask(values, threshold, n_equal)


def _bracket(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return bounds that hold the k-th largest value almost surely."""
    n = values.numel()
    sample = values[:: max(1, n // _SAMPLE)].sort(descending=True).values
    m = sample.numel()
    share = k / n
    spread = _MARGIN * math.sqrt(m * share * (1 - share)) + 2
    first, last = int(share * m - spread), int(share * m + spread)
    high = sample[first] if first > 0 else sample.new_tensor(math.inf)
    low = sample[last] if last < m else sample.new_tensor(-math.inf)
    return low, high


def _divide(values: Tensor, low: Tensor, high: Tensor) -> tuple[int, Tensor]:
    """Return how many values lie above the bracket, and those inside it."""
    if values.device.type != "cpu":
        over = values > high
        return int(over.sum()), values[(values >= low) & ~over]
    # On CPUs numpy compares, counts and selects several times faster than torch.
    above, inside = 0, []
    low_, high_ = low.numpy(), high.numpy()
    for chunk in values.split(_CHUNK):
        array = chunk.numpy()
        over_ = array > high_
        above += int(np.count_nonzero(over_))
        inside.append(array[(array >= low_) ^ over_])
    return above, torch.from_numpy(np.concatenate(inside))


def _mask(values: Tensor, threshold: Tensor, n_equal: int) -> Tensor:
    """Return what is above the threshold, and the first `n_equal` elements equal to it."""
    if values.device.type == "cpu":
        mask = torch.from_numpy(values.numpy() > threshold.numpy())
    else:
        mask = values > threshold
    for start in range(0, values.numel(), _CHUNK):
        if n_equal == 0:
            break
        equal = (values[start : start + _CHUNK] == threshold).nonzero().flatten()[:n_equal]
        mask[start + equal] = True
        n_equal -= equal.numel()
    return mask
