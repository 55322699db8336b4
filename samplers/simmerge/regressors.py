"""Regressors of a merge's gain: one interface, four kinds and the average of three.

All take standardised features, and the operators as columns of zeros and ones, and return a mean
and a standard deviation that the caller calibrates.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NO_SIGNALS, AVERAGE = "operator-means", "average"
# Below these an operator is not learned about alone.
_MIN_ROWS = 5


@dataclass(frozen=True)
class Design:
    """The rows of a regression.

    Args:
        features: `n x d`-dim, standardised.
        operators: `n x k`-dim, a single one in each row.
    """

    features: Array
    operators: Array

    def __getitem__(self, rows: Any) -> "Design":
        return Design(self.features[rows], self.operators[rows])

    def __len__(self) -> int:
        return len(self.features)

    @property
    def plain(self) -> Array:
        """Features and operators side by side, `n x (d + k)`-dim."""
        return np.hstack([self.features, self.operators])

    @property
    def crossed(self) -> Array:
        """Features for all operators and for each alone, `n x (k + d + k d)`-dim.

        Features are scaled down by the root of their number, so that one penalty suits both.
        """
        scaled = self.features / np.sqrt(max(self.features.shape[1], 1))
        alone = [scaled * column[:, None] for column in self.operators.T]
        return np.hstack([self.operators, scaled, *alone])


class Fitted(Protocol):
    """Predicts a gain."""

    def predict(self, design: Design) -> tuple[Array, Array]:
        """Return means and standard deviations, `n`-dim each."""


class Regressor(Fitted, Protocol):
    """Learns to predict a gain."""

    def fit(self, design: Design, gains: Array, weights: Array) -> Self:
        """Learn from `n` measured merges; `weights` are inverse variances up to a factor."""


class OperatorMeans:
    """The mean gain of each operator, whatever is merged: the best fixed operator's choice."""

    def fit(self, design: Design, gains: Array, weights: Array) -> Self:
        """Average."""
        mass = design.operators * weights[:, None]
        overall = np.average(gains, weights=weights)
        total = mass.sum(axis=0)
        self._means = np.where(total > 0, mass.T @ gains / np.maximum(total, 1e-12), overall)
        residuals = gains - design.operators @ self._means
        self._deviation = float(np.sqrt(np.mean(residuals**2))) + 1e-9
        return self

    def predict(self, design: Design) -> tuple[Array, Array]:
        """Return the operators' means and one deviation."""
        means: Array = design.operators @ self._means
        return means, np.full(len(design), self._deviation)


class Ridge:
    """Linear in the features, with slopes of each operator; penalty and noise by evidence."""

    def fit(self, design: Design, gains: Array, weights: Array) -> Self:
        """Learn (MacKay 1992)."""
        from sklearn.linear_model import BayesianRidge

        self._model = BayesianRidge(max_iter=500)
        self._model.fit(design.crossed, gains, sample_weight=weights)
        return self

    def predict(self, design: Design) -> tuple[Array, Array]:
        """Return the posterior predictive distribution's moments."""
        mean, deviation = self._model.predict(design.crossed, return_std=True)
        return mean, deviation


def fit_quietly(model: Any, rows: Array, targets: Array, weights: Array | None = None) -> Any:
    """Fit a scikit-learn model; that a network stops before it has converged is meant."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(rows, targets, sample_weight=weights)


class Ensemble:
    """Members that saw resampled rows; they disagree where little is known.

    Args:
        make: Seed -> an unfitted scikit-learn regressor.
        n_members: Of the ensemble.
        seed: Of the resampling and the members.
    """

    def __init__(self, make: Callable[[int], Any], n_members: int, seed: int) -> None:
        self._make, self._n_members, self._seed = make, n_members, seed

    def fit(self, design: Design, gains: Array, weights: Array) -> Self:
        """Fit each member to rows drawn with replacement."""
        rng = np.random.default_rng(self._seed)
        rows, n = design.plain, len(gains)
        self._center, self._spread = float(gains.mean()), float(gains.std()) or 1.0
        targets = (gains - self._center) / self._spread  # penalties are for numbers about 1
        self._members = []
        out = np.zeros(n), np.zeros(n)
        for _ in range(self._n_members):
            drawn = rng.integers(n, size=n)
            member = fit_quietly(
                self._make(int(rng.integers(2**31))), rows[drawn], targets[drawn], weights[drawn]
            )
            self._members.append(member)
            left = np.setdiff1d(np.arange(n), drawn)
            if len(left):
                out[0][left] += (member.predict(rows[left]) - targets[left]) ** 2
                out[1][left] += 1
        seen = out[1] > 0
        # Of rows that a member did not see: noise, and what no member can know.
        self._noise = float(np.mean(out[0][seen] / out[1][seen])) if seen.any() else 0.0
        return self

    def predict(self, design: Design) -> tuple[Array, Array]:
        """Return the members' mean; their variance and that of the noise together."""
        values = np.stack([member.predict(design.plain) for member in self._members])
        means = self._center + self._spread * values.mean(axis=0)
        return means, self._spread * np.sqrt(values.var(axis=0) + self._noise + 1e-12)


class Average:
    """The mean of fitted regressors: where they differ, nobody knows which one is right.

    Args:
        members: Fitted.
    """

    def __init__(self, members: Sequence[Fitted]) -> None:
        self._members = members

    def predict(self, design: Design) -> tuple[Array, Array]:
        """Return the means' mean, and the deviations' with how far the means differ."""
        answers = [member.predict(design) for member in self._members]
        means = np.stack([mean for mean, _ in answers])
        variances = np.stack([deviation**2 for _, deviation in answers])
        return means.mean(axis=0), np.sqrt(variances.mean(axis=0) + means.var(axis=0))


class PerOperator:
    """A regressor for each operator: what helps one operator may harm another.

    One for all, with the operator among its features, predicts gains as well, but tells operators
    apart half as well.

    Args:
        make: Returns an unfitted regressor.
    """

    def __init__(self, make: Callable[[], Regressor]) -> None:
        self._make = make

    def fit(self, design: Design, gains: Array, weights: Array) -> Self:
        """Fit each to its operator's rows, to all rows where there are hardly any."""
        self._fitted = []
        for column in design.operators.T:
            rows = np.flatnonzero(column)
            rows = rows if len(rows) >= _MIN_ROWS else np.arange(len(gains))
            self._fitted.append(self._make().fit(design[rows], gains[rows], weights[rows]))
        return self

    def predict(self, design: Design) -> tuple[Array, Array]:
        """Ask each about its operator's rows; of an unknown operator, all."""
        answers = [regressor.predict(design) for regressor in self._fitted]
        means = np.stack([mean for mean, _ in answers], axis=1)
        deviations = np.stack([deviation for _, deviation in answers], axis=1)
        unknown = ~design.operators.any(axis=1, keepdims=True)
        share = np.where(unknown, 1.0 / len(answers), design.operators)
        return (share * means).sum(axis=1), (share * deviations).sum(axis=1)


def _tree(seed: int) -> Any:
    from sklearn.ensemble import GradientBoostingRegressor

    return GradientBoostingRegressor(
        n_estimators=60,
        max_depth=3,
        learning_rate=0.1,
        subsample=0.7,
        max_features=0.3,
        random_state=seed,
    )


def _network(seed: int) -> Any:
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(
        hidden_layer_sizes=(24,), solver="lbfgs", alpha=3.0, max_iter=150, random_state=seed
    )


def fit_kinds(
    kinds: Sequence[str], design: Design, gains: Array, weights: Array, seed: int
) -> dict[str, Fitted]:
    """Fit several kinds of regressors, and add the average of those that use signals.

    Raises:
        ValueError: If a kind is unknown.
    """
    known: dict[str, Callable[[], Regressor]] = {
        NO_SIGNALS: OperatorMeans,
        "ridge": Ridge,
        "boosted-trees": lambda: PerOperator(lambda: Ensemble(_tree, 4, seed)),
        "mlp-ensemble": lambda: PerOperator(lambda: Ensemble(_network, 8, seed)),
    }
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        raise ValueError(f"A regressor must be one of {', '.join(known)}, but got {unknown[0]!r}.")
    fitted: dict[str, Fitted] = {kind: known[kind]().fit(design, gains, weights) for kind in kinds}
    members = [regressor for kind, regressor in fitted.items() if kind != NO_SIGNALS]
    return {**fitted, AVERAGE: Average(members)} if len(members) > 1 else fitted


REGRESSORS = (NO_SIGNALS, "ridge", "boosted-trees", "mlp-ensemble")
