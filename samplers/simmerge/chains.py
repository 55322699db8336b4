"""Merges of more than two models, composed from predictions of two-way merges.

A chain merges its first two models, then each further one into the result, every model with the
same share in the end. After SimMerge (arXiv 2601.09473), whose space has `|S|! |O|^(|S| - 1)`
chains for a subset `S` and operators `O`. A merged model has no signals before it exists: what it
gains with one more model is taken to be the mean of what its members gain with that model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from statistics import fmean

from .predictor import Prediction

# (left, right, operator) -> prediction.
Predictions = Mapping[tuple[str, str, str], Prediction]


@dataclass(frozen=True)
class Chain:
    """An order of models and the operators between them.

    Args:
        models: In the order they are merged, at least two.
        operators: One for each model but the first.
    """

    models: tuple[str, ...]
    operators: tuple[str, ...]

    def then(self, model: str, operator: str) -> "Chain":
        """Return the chain that goes on with one more model."""
        return Chain((*self.models, model), (*self.operators, operator))


@dataclass(frozen=True)
class Ranked:
    """A chain with what it is expected to gain.

    Args:
        chain: What is merged.
        prediction: Of the gain over the mean of its models.
        score: Mean of its models' scores plus the gain; the gain alone where none are known.
    """

    chain: Chain
    prediction: Prediction
    score: float


def rank_chains(
    models: Sequence[str],
    operators: Sequence[str],
    predictions: Predictions,
    max_models: int = 2,
    scores: Mapping[str, float] | None = None,
    beam: int = 1000,
) -> list[Ranked]:
    """Return chains of two to `max_models` models, those within range first, then the best first.

    Args:
        models: To choose from.
        operators: To choose from.
        predictions: For every ordered pair of models and operator.
        max_models: Of a chain.
        scores: Model -> its own score, larger is better; for all models or none.
        beam: Chains of each length that are kept and continued.

    Raises:
        ValueError: If `max_models < 2` or scores are known of some models alone.
    """
    if max_models < 2:
        raise ValueError(f"`max_models >= 2` must hold, but got {max_models}.")
    if scores and not set(models) <= scores.keys():
        missing = sorted(set(models) - scores.keys())
        raise ValueError(
            f"All models must have a score or none, but {missing[0]!r} has none. Give it one, or "
            "leave all out."
        )
    level = _best(_pairs(models, operators, predictions, scores or {}), beam)
    ranked = list(level)
    for _ in range(max_models - 2):
        longer = (_longer(one, models, operators, predictions, scores or {}) for one in level)
        level = _best((one for many in longer for one in many), beam)
        ranked += level
    return _best(ranked, len(ranked))


def _pairs(
    models: Sequence[str],
    operators: Sequence[str],
    predictions: Predictions,
    scores: Mapping[str, float],
) -> Iterator[Ranked]:
    for i, left in enumerate(models):
        for j, right in enumerate(models):
            for operator in operators if i != j else ():
                prediction = predictions[left, right, operator]
                # Most operators do not care which of two comes first.
                if j < i and prediction == predictions[right, left, operator]:
                    continue
                yield _ranked(Chain((left, right), (operator,)), prediction, scores)


def _longer(
    start: Ranked,
    models: Sequence[str],
    operators: Sequence[str],
    predictions: Predictions,
    scores: Mapping[str, float],
) -> Iterator[Ranked]:
    for model in models:
        for operator in operators if model not in start.chain.models else ():
            steps = [predictions[member, model, operator] for member in start.chain.models]
            yield _ranked(
                start.chain.then(model, operator), _continued(start.prediction, steps), scores
            )


def _continued(before: Prediction, steps: Sequence[Prediction]) -> Prediction:
    """Return the gain after one more model: the earlier gain is diluted by its share."""
    share = len(steps) / (len(steps) + 1)
    return Prediction(
        share * before.gain + fmean(step.gain for step in steps),
        # Errors of one model's predictions go together, those of two steps do not.
        hypot(share * before.standard_deviation, fmean(step.standard_deviation for step in steps)),
        before.is_known and all(step.is_known for step in steps),
    )


def _ranked(chain: Chain, prediction: Prediction, scores: Mapping[str, float]) -> Ranked:
    level = fmean(scores[model] for model in chain.models) if scores else 0.0
    return Ranked(chain, prediction, level + prediction.gain)


def _best(ranked: Iterable[Ranked], n: int) -> list[Ranked]:
    return sorted(ranked, key=lambda one: (not one.prediction.is_known, -one.score))[:n]
