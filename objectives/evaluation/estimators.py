"""Statistics of one candidate's numbers, and their standard errors, clusters included."""

import math
from collections.abc import Callable

import numpy as np

from .clusters import Clusters, Numbers, clustered_error, effective_size, resamples

_N_RESAMPLES = 400


def means(numbers: Numbers, counts: Numbers) -> Numbers:
    """Return the mean under each row of counts.

    Args:
        numbers: `q`-dim, one an answer.
        counts: `r x q`-dim: how often each answer counts in each of `r` resamples.
    """
    result: Numbers = counts @ numbers / counts.sum(axis=1)
    return result


def ratios(numbers: Numbers, counts: Numbers) -> Numbers:
    """Return the ratio of sums under each row of counts: a mean per token over texts.

    Args:
        numbers: A `q x 2`-dim array: what each answer adds above and below the line.
        counts: As for `means`.
    """
    sums = counts @ numbers
    result: Numbers = sums[:, 0] / sums[:, 1]
    return result


def exponentials(numbers: Numbers, counts: Numbers) -> Numbers:
    """Return the exponential of `ratios`; infinite where it is too large for a number."""
    with np.errstate(over="ignore"):
        result: Numbers = np.exp(ratios(numbers, counts))
    return result


def ratio_error(numbers: Numbers, clusters: Clusters | None = None) -> float:
    """Return the standard error of a ratio of sums; for one cluster, the ratio's size.

    By linearization (Cochran 1977, ch. 6): each answer's residual from the ratio, summed within
    clusters. A ratio that is 0 in every answer is exactly 0: a model that is its parent.
    """
    places = np.arange(len(numbers)) if clusters is None else clusters
    ratio = float(ratios(numbers, np.ones((1, len(numbers))))[0])
    sums = np.bincount(places, weights=numbers[:, 0] - ratio * numbers[:, 1])
    n = len(sums)
    if n == 1:
        return abs(ratio)
    return math.sqrt(n / (n - 1) * float(sums @ sums)) / float(numbers[:, 1].sum())


def exponential_error(numbers: Numbers, clusters: Clusters | None = None) -> float:
    """Return the standard error of `exponentials`, by the delta method."""
    value = float(exponentials(numbers, np.ones((1, len(numbers))))[0])
    return value * ratio_error(numbers, clusters)


def percentiles(share: float) -> Callable[[Numbers, Numbers], Numbers]:
    """Return a statistic like `means`: the smallest number that `share` of the answers keep to."""

    def statistic(numbers: Numbers, counts: Numbers) -> Numbers:
        order = np.argsort(numbers)
        reached = counts[:, order].cumsum(axis=1)
        enough = reached >= share * reached[:, -1:] - 1e-9
        result: Numbers = numbers[order][enough.argmax(axis=1)]
        return result

    return statistic


def no_error(numbers: Numbers, clusters: Clusters | None = None) -> float:
    """Return the error of what is known without asking anything: 0."""
    return 0.0


def share_error(numbers: Numbers, clusters: Clusters | None = None) -> float:
    """Return the binomial standard error of a mean of numbers within [0, 1].

    It is taken at the share shrunk by one hit and one miss (Laplace), so that 0 of `n` and `n`
    of `n` do not claim to be exact. Numbers other than 0 and 1 vary less than it says. Answers
    in clusters count as many as they are worth.
    """
    n, hits = float(len(numbers)), float(np.sum(numbers))
    if clusters is not None:
        size = effective_size(numbers, clusters)
        n, hits = size, hits / n * size
    shrunk = (hits + 1) / (n + 2)
    return math.sqrt(shrunk * (1 - shrunk) / n)


def mean_error(numbers: Numbers, clusters: Clusters | None = None) -> float:
    """Return the standard error of a mean; for one number, the number itself."""
    if clusters is not None:
        return clustered_error(numbers, clusters)
    n = len(numbers)
    return float(np.std(numbers, ddof=1)) / math.sqrt(n) if n > 1 else abs(float(numbers[0]))


def count_error(numbers: Numbers, clusters: Clusters | None = None) -> float:
    """Return the standard error of a mean count.

    A sample without spread gets the error that one differing answer would cause, `1 / n`, or one
    differing cluster.
    """
    n = len(numbers)
    largest = 1 if clusters is None else int(np.bincount(clusters).max())
    return max(mean_error(numbers, clusters) if largest < n else 0.0, largest / n)


def percentile_error(share: float) -> Callable[[Numbers, Clusters | None], float]:
    """Return a bootstrap error, at least one token in all: no sample is exact."""

    def error(numbers: Numbers, clusters: Clusters | None = None) -> float:
        counts = resamples(len(numbers), _N_RESAMPLES, clusters=clusters)
        drawn = percentiles(share)(numbers, counts)
        return max(float(np.std(drawn)), 1 / len(numbers))

    return error
