"""Do the intervals of `validate` hold the true hypervolumes?

    python benchmarks/evaluation/hypervolume_coverage.py

Fronts and eight uniform merges whose accuracies and tokens are known answer the same questions;
answers to a question are correlated between models. `resampled` are quantiles of the resamples
themselves, `pivotal` those that `validate` prints. *Below* and *above* are the shares of studies
whose truth lies below and above the 95 % interval: 0.025 each, if it is honest.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from mergefront.study.results.validation import _interval, _reflected

Array = NDArray[np.float64]

_REFERENCE = (0.624, 29.8)
_UNIFORM = np.linspace(0.0, 1.0, 8)
_BETWEEN = np.linspace(0.0, 1.0, 21)


@dataclass(frozen=True)
class Design:
    """How many questions, how many models, and how they answer.

    Args:
        n_questions: Of the split.
        n_models: Of the front.
        correlation: Of two models' answers to a question.
        gap: Of the front's accuracy above the uniform curve's.
    """

    n_questions: int
    n_models: int
    correlation: float
    gap: float


DESIGNS = [
    Design(200, 8, 0.5, 0.0),
    Design(200, 16, 0.5, 0.0),
    Design(640, 16, 0.5, 0.0),
    Design(200, 16, 0.5, 0.06),
    Design(640, 16, 0.8, 0.06),
    Design(200, 8, 0.8, 0.06),
]


def area(accuracy: Array, tokens: Array) -> Array:
    """Return the hypervolumes of fronts, one a row."""
    gains = np.maximum(accuracy - _REFERENCE[0], 0.0) * (tokens < _REFERENCE[1])
    costs = np.minimum(tokens, _REFERENCE[1])
    order = np.argsort(costs, axis=1)
    costs = np.take_along_axis(costs, order, 1)
    best = np.maximum.accumulate(np.take_along_axis(gains, order, 1), axis=1)
    ends = np.column_stack([costs[:, 1:], np.full(len(costs), _REFERENCE[1])])
    total: Array = (best * (ends - costs)).sum(axis=1)
    return total


def straight(values: Array) -> Array:
    """Return the uniform curve between neighbouring merges, one a row."""
    parts = [
        values[:, i, None] * (1 - _BETWEEN) + values[:, i + 1, None] * _BETWEEN
        for i in range(values.shape[1] - 1)
    ]
    return np.concatenate(parts, axis=1)


def volumes(design: Design, accuracy: Array, tokens: Array) -> dict[str, Array]:
    """Return the hypervolumes of front and curve, and the front's gain."""
    k = design.n_models
    front = area(accuracy[:, :k], tokens[:, :k])
    curve = area(straight(accuracy[:, k:]), straight(tokens[:, k:]))
    return {"front": front, "curve": curve, "gain": front - curve}


def studies(design: Design, n: int, seed: int, n_resamples: int = 300) -> Iterator[Array]:
    """Yield where the truth lies for resampled and pivotal intervals: 2 x 3 signs a study."""
    rng, weights = np.random.default_rng(seed), np.linspace(0.02, 0.98, design.n_models)
    accuracy = np.r_[0.65 + 0.27 * weights + design.gap, 0.65 + 0.27 * _UNIFORM].clip(0, 1)
    tokens = np.r_[2 + 25 * weights, 2 + 25 * _UNIFORM]
    truth = volumes(design, accuracy[None], tokens[None])
    shared, size = design.correlation, (design.n_questions, len(accuracy))
    for _ in range(n):
        common, own = rng.standard_normal((size[0], 1)), rng.standard_normal(size)
        right = np.sqrt(shared) * common + np.sqrt(1 - shared) * own < norm.ppf(accuracy)
        lengths = shared * rng.gamma(2.0, 0.5, (size[0], 1))
        lengths = tokens * (lengths + (1 - shared) * rng.gamma(2.0, 0.5, size))
        counts = rng.multinomial(size[0], np.full(size[0], 1 / size[0]), n_resamples)
        shares = np.vstack([np.ones(size[0]), counts]) / size[0]
        found = volumes(design, shares @ right, shares @ lengths)
        drawn = {name: values[1:] for name, values in found.items()}
        measured = {name: values[:1] for name, values in found.items()}
        ways = (drawn, _reflected(drawn, measured))
        yield np.array([[_side(truth[name], way[name]) for name in truth] for way in ways])


def _side(truth: Array, values: Array) -> float:
    """Return -1 where a truth lies below the interval of values, 1 above, 0 within."""
    low, high = _interval(values)
    return float(truth[0] > high) - float(truth[0] < low)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    n = parser.parse_args().studies
    print("| questions | models | correlation | gap | of | resampled: below, above | pivotal |")
    print("|---|---|---|---|---|---|---|")
    for seed, design in enumerate(DESIGNS):
        sides = np.array(list(studies(design, n, seed)))
        told = f"{design.n_questions} | {design.n_models} | {design.correlation} | {design.gap}"
        for place, name in enumerate(("front", "curve", "gain")):
            cells = [
                f"{(sides[:, way, place] < 0).mean():.3f}, {(sides[:, way, place] > 0).mean():.3f}"
                for way in (0, 1)
            ]
            print(f"| {told} | {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
