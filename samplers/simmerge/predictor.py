"""What a merge will gain, predicted from similarity signals, with an error or not at all.

After SimMerge (arXiv 2601.09473): a small network over signals, task and operator, trained on
measured two-way merges. Ours differs: the kind of regressor is chosen by leaving models out, the
mean of each operator is one of the candidates, so that signals which tell nothing are not used;
errors are calibrated on merges of models left out; and far from all examples it abstains.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from .examples import Example, Merge, shared_features
from .regressors import AVERAGE, NO_SIGNALS, REGRESSORS, Array, Design, Fitted, fit_kinds

_MIN_MODELS = 4
_MIN_ROWS = 6
_N_FOLDS = 5
_CONSTANT = 1e-9
# Standard errors by which a single regressor must be better than the average of all.
_CLEARLY = 2.0


@dataclass(frozen=True)
class Prediction:
    """What a two-way merge will gain over the mean of its parents.

    Args:
        gain: Expected.
        standard_deviation: Of the error, as on models that were left out.
        is_known: Whether the merge lies within the range of the examples; if not, the numbers
            are an extrapolation that nothing measured supports.
    """

    gain: float
    standard_deviation: float
    is_known: bool = True

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Return the bounds that hold the gain with probability `level`, normal errors assumed."""
        half = NormalDist().inv_cdf(0.5 + level / 2) * self.standard_deviation
        return self.gain - half, self.gain + half


@dataclass(frozen=True)
class Quality:
    """How well a kind of regressor predicted merges of models left out.

    Args:
        rmse: Root mean squared error of the gain.
        regrets: Gain that was lost on each pair and task by taking, of the operators measured,
            the one predicted to be best.
        scale: By which its standard deviations are multiplied to be right on average.
    """

    rmse: float
    regrets: tuple[float, ...]
    scale: float

    @property
    def regret(self) -> float:
        """Mean of `regrets`."""
        return fmean(self.regrets) if self.regrets else 0.0


class Predictor:
    """Predicts gains of two-way merges; see `Predictor.fit`.

    Attributes:
        kind: Of the regressor that was chosen.
        quality: Kind -> how well it predicted merges of models left out.
        features: Names of the features that it uses.
    """

    def __init__(
        self,
        kind: str,
        quality: Mapping[str, Quality],
        scaling: "_Scaling",
        regressor: Fitted,
        reach: "_Reach",
    ) -> None:
        self.kind, self.quality = kind, dict(quality)
        self._scaling, self._regressor, self._reach = scaling, regressor, reach

    @property
    def features(self) -> list[str]:
        """Names of the features that it uses."""
        return self._scaling.names

    @classmethod
    def fit(
        cls,
        examples: Sequence[Example],
        features: Iterable[str] | None = None,
        kinds: Sequence[str] = REGRESSORS,
        seed: int = 0,
    ) -> "Predictor":
        """Choose a regressor by leave-models-out cross-validation and fit it to everything.

        Models are dealt into five folds. A merge is left out with each fold that holds one of its
        models, and predicted from merges of other models alone. What counts is the choice of the
        operator (`Quality.regret`), then the error: the kind that predicts gains best may not be
        the one that tells operators apart. A single regressor that is not clearly better than
        the average of all does not take its place.

        Args:
            examples: Measured merges.
            features: Names that may be used; defaults to None: those that all examples have.
            kinds: Of regressors to choose from: operator-means, ridge, boosted-trees,
                mlp-ensemble; and the average of all but the first.
            seed: Of folds and ensembles.

        Raises:
            ValueError: If there are fewer than four models or six merges to learn from.
        """
        _check(examples)
        names = set(shared_features([example.merge for example in examples]))
        names &= names if features is None else set(features)
        scaling = _Scaling.of(examples, sorted(names))
        design = scaling.design([example.merge for example in examples])
        gains = np.array([example.gain for example in examples])
        weights = _weights(examples, gains)
        folds = _folds(examples, seed)
        left_out = [
            _predict_all(fit_kinds(kinds, design[a], gains[a], weights[a], seed), design[b])
            for a, b in folds
        ]
        tests = [test for _, test in folds]
        quality = {
            kind: _quality([found[kind] for found in left_out], tests, examples)
            for kind in left_out[0]
        }
        best = _choose(quality)
        regressor = fit_kinds(kinds if best == AVERAGE else [best], design, gains, weights, seed)[
            best
        ]
        return cls(best, quality, scaling, regressor, _Reach.of(design, folds))

    def predict(self, merges: Sequence[Merge]) -> list[Prediction]:
        """Predict each merge.

        Raises:
            ValueError: If a merge lacks a feature that the predictor uses.
        """
        if not merges:
            return []
        design = self._scaling.design(merges)
        means, deviations = self._regressor.predict(design)
        deviations = deviations * self.quality[self.kind].scale
        known = self._reach.covers(design)
        rows = zip(means.tolist(), deviations.tolist(), known.tolist(), strict=True)
        return [Prediction(*row) for row in rows]


@dataclass(frozen=True)
class _Scaling:
    """Turns merges into rows.

    Args:
        names: Of the features.
        center: `d`-dim.
        spread: `d`-dim.
        operators: Names, in the order of their columns.
    """

    names: list[str]
    center: Array
    spread: Array
    operators: list[str]

    @classmethod
    def of(cls, examples: Sequence[Example], names: list[str]) -> "_Scaling":
        rows = np.array([[e.merge.features[name] for name in names] for e in examples])
        rows = rows.reshape(len(examples), len(names))
        spread = rows.std(axis=0)
        kept = spread > _CONSTANT
        operators = sorted({example.merge.operator for example in examples})
        names = [name for name, keep in zip(names, kept, strict=True) if keep]
        return cls(names, rows.mean(axis=0)[kept], spread[kept], operators)

    def design(self, merges: Sequence[Merge]) -> Design:
        for merge in merges:
            missing = [name for name in self.names if name not in merge.features]
            if missing:
                raise ValueError(
                    f"A merge must have the feature {missing[0]!r}, but has it not. Compute it, "
                    "or fit with `features` that all merges have."
                )
        rows = np.array([[merge.features[name] for name in self.names] for merge in merges])
        columns = np.array([[merge.operator == o for o in self.operators] for merge in merges])
        scaled = (rows.reshape(len(merges), len(self.names)) - self.center) / self.spread
        return Design(scaled, columns.astype(np.float64))


@dataclass(frozen=True)
class _Reach:
    """How far from the examples predictions were ever checked.

    Args:
        rows: Of the examples, `n x d`-dim.
        radius: Largest distance, root mean square over features, between a merge that was left
            out and the nearest one that was learned from.
    """

    rows: Array
    radius: float

    @classmethod
    def of(cls, design: Design, folds: "Sequence[_Fold]") -> "_Reach":
        rows = design.features
        distances = [_nearest(rows[test], rows[train]) for train, test in folds]
        return cls(rows, float(np.concatenate(distances).max()))

    def covers(self, design: Design) -> NDArray[np.bool_]:
        near = _nearest(design.features, self.rows) <= self.radius
        has_operator = design.operators.any(axis=1)
        covered: NDArray[np.bool_] = near & has_operator
        return covered


def _nearest(rows: Array, others: Array) -> Array:
    """Return the distance of each row to the nearest other, root mean square over features."""
    nearest: Array = cdist(rows, others).min(axis=1) / np.sqrt(max(rows.shape[1], 1))
    return nearest


def _check(examples: Sequence[Example]) -> None:
    models = {model for example in examples for model in example.merge.models}
    if len(models) < _MIN_MODELS or len(examples) < _MIN_ROWS:
        raise ValueError(
            f"At least {_MIN_ROWS} measured merges of {_MIN_MODELS} models must be there to learn "
            f"from, but got {len(examples)} of {len(models)}."
        )


_Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


def _weights(examples: Sequence[Example], gains: Array) -> Array:
    """Return inverse variances, of measurement and of what differs between merges together."""
    between = float(gains.var()) + _CONSTANT
    errors = np.array([example.standard_error for example in examples])
    weights: Array = between / (between + errors**2)
    return weights


def leave_models_out(
    pairs: Sequence[tuple[str, ...]], n_folds: int, seed: int
) -> list[tuple[list[str], NDArray[np.intp], NDArray[np.intp]]]:
    """Return for each fold its models, the rows without any of them and the rows with one.

    Args:
        pairs: The models of each row.
        n_folds: Groups that models are dealt into.
        seed: Of the dealing.
    """
    models = sorted({model for pair in pairs for model in pair})
    np.random.default_rng(seed).shuffle(models)
    folds = []
    for start in range(min(n_folds, len(models))):
        group = models[start::n_folds]
        held = np.array([bool(set(pair) & set(group)) for pair in pairs])
        folds.append((group, np.flatnonzero(~held), np.flatnonzero(held)))
    return folds


def _folds(examples: Sequence[Example], seed: int) -> list[_Fold]:
    pairs = [example.merge.models for example in examples]
    folds = [(train, test) for _, train, test in leave_models_out(pairs, _N_FOLDS, seed)]
    return [(train, test) for train, test in folds if len(train) >= 2 and len(test)]


_Moments = tuple[Array, Array]


def _predict_all(fitted: Mapping[str, Fitted], design: Design) -> dict[str, _Moments]:
    return {kind: regressor.predict(design) for kind, regressor in fitted.items()}


def _quality(
    predicted: Sequence[_Moments],
    tests: Sequence[NDArray[np.intp]],
    examples: Sequence[Example],
) -> Quality:
    rows = [[examples[i] for i in test] for test in tests]
    means = np.concatenate([mean for mean, _ in predicted])
    deviations = np.concatenate([deviation for _, deviation in predicted])
    residuals = np.array([e.gain for left_out in rows for e in left_out]) - means
    regrets = [
        loss
        for left_out, (mean, _) in zip(rows, predicted, strict=True)
        for loss in _regrets(left_out, mean)
    ]
    return Quality(
        float(np.sqrt(np.mean(residuals**2))),
        tuple(regrets),
        float(np.sqrt(np.mean((residuals / deviations) ** 2))),
    )


def _choose(quality: Mapping[str, Quality]) -> str:
    best = min(quality, key=lambda kind: (quality[kind].regret, quality[kind].rmse))
    if AVERAGE not in quality or best == NO_SIGNALS:
        return best
    more = np.array(quality[AVERAGE].regrets) - np.array(quality[best].regrets)
    # Sum and its standard error; the other way round at zero, where there is nothing to compare.
    is_clear = more.sum() > _CLEARLY * np.sqrt(len(more)) * (more.std() if len(more) else 0.0)
    return best if is_clear else AVERAGE


def _regrets(examples: Sequence[Example], predicted: Array) -> list[float]:
    """Return what the predicted choice loses, for each pair and task with several operators."""
    groups: dict[tuple[object, ...], list[tuple[float, float]]] = {}
    for example, gain in zip(examples, predicted.tolist(), strict=True):
        key = (frozenset(example.merge.models), example.task)
        groups.setdefault(key, []).append((gain, example.gain))
    return [
        max(measured for _, measured in group) - max(group, key=lambda row: row[0])[1]
        for group in groups.values()
        if len(group) > 1
    ]
