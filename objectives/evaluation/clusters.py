"""Errors with two levels: answers that belong together say less than answers that do not.

A question is a cluster and its repeats are the cluster's answers; questions that share a passage
are one cluster too. Formulas: the ratio estimator's cluster-robust variance (Cochran, Sampling
Techniques, 1977, ch. 9A), which is `sd(cluster means) / sqrt(clusters)` where clusters are of one
size; effective sample sizes for shares after Korn and Graubard (Survey Methodology 24, 1998).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm, t

Numbers = NDArray[np.float64]
Clusters = NDArray[np.int64]


def numbered(names: Sequence[str]) -> Clusters | None:
    """Return a number for each answer's cluster; None if no two answers share one."""
    numbers = {name: place for place, name in enumerate(dict.fromkeys(names))}
    if len(numbers) == len(names):
        return None
    return np.array([numbers[name] for name in names], dtype=np.int64)


def clustered_error(numbers: Numbers, clusters: Clusters) -> float:
    """Return the standard error of a mean over answers; for one cluster, the mean's size."""
    sums = np.bincount(clusters, weights=numbers - numbers.mean())
    n_clusters = len(sums)
    if n_clusters == 1:
        return abs(float(numbers.mean()))
    scale = n_clusters / (n_clusters - 1)
    return math.sqrt(scale * float(sums @ sums)) / len(numbers)


def effective_size(numbers: Numbers, clusters: Clusters | None) -> float:
    """Return how many independent answers are worth as much as these.

    Args:
        numbers: Within [0, 1].
        clusters: Of each. None: all answers are independent.

    Returns:
        Between the size if all answers of a cluster were one and the number of answers: the
        variance of independent answers, divided by the clusters' variance.
    """
    n = len(numbers)
    if clusters is None:
        return float(n)
    sizes = np.bincount(clusters)
    least = n**2 / float(sizes @ sizes)
    share = float(numbers.mean())
    spread = share * (1 - share)
    if spread <= 0 or len(sizes) == 1:
        return least
    variance = clustered_error(numbers, clusters) ** 2
    return float(np.clip(spread / variance, least, n)) if variance > 0 else float(n)


def share_interval(
    numbers: Numbers, clusters: Clusters | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Return an interval of a mean of numbers within [0, 1]: few answers, or shares near 0 and 1.

    Beta-Binomial: a uniform prior, hits and misses of the effective size, which is made smaller
    for being estimated from few clusters. It covers where the normal interval does not.
    """
    size = effective_size(numbers, clusters)
    if clusters is not None:
        tail = (1 + level) / 2
        n_clusters = int(clusters.max()) + 1
        size *= (norm.ppf(tail) / t.ppf(tail, max(n_clusters - 1, 1))) ** 2
    hits = float(numbers.mean()) * size
    low, high = beta.ppf([(1 - level) / 2, (1 + level) / 2], hits + 1, size - hits + 1)
    return float(low), float(high)


def resamples(
    n: int, n_resamples: int, seed: int = 0, clusters: Clusters | None = None
) -> Numbers:
    """Return how often each of `n` answers is drawn, an `n_resamples x n`-dim array.

    Args:
        n: Answers.
        n_resamples: Rows.
        seed: Of the draws.
        clusters: Of each answer; whole clusters are drawn. Defaults to None: answers are.
    """
    n_drawn = n if clusters is None else int(clusters.max()) + 1
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_drawn, np.full(n_drawn, 1.0 / n_drawn), size=n_resamples)
    counts = drawn if clusters is None else drawn[:, clusters]
    return counts.astype(np.float64)


@dataclass(frozen=True)
class Components:
    """Where answers differ: from question to question, and from repeat to repeat.

    Args:
        between: Variance of the questions' own means.
        within: Variance of the repeats of one question.
    """

    between: float
    within: float

    def error(self, n_questions: float, repeats: float) -> float:
        """Return the standard error of a mean over so many questions and repeats."""
        return math.sqrt((self.between + self.within / repeats) / n_questions)


def components(numbers: Numbers, clusters: Clusters) -> Components | None:
    """Return the variance components of answers in clusters of one size (ANOVA).

    None where clusters are of several sizes, or where there are too few to tell.
    """
    sizes = np.bincount(clusters)
    n_clusters, size = len(sizes), int(sizes[0])
    if n_clusters < 2 or size < 2 or np.any(sizes != size):
        return None
    table = numbers[np.argsort(clusters, kind="stable")].reshape(n_clusters, size)
    within = float(table.var(axis=1, ddof=1).mean())
    between = float(table.mean(axis=1).var(ddof=1)) - within / size
    return Components(max(between, 0.0), within)
