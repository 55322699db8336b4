"""Linear bandits: which arm to try next, given what the tried ones were worth."""

from typing import Any

import numpy as np

from .regressors import Array, fit_quietly


class LinUCB:
    """Upper confidence bounds of a linear reward (Li et al. 2010, with one model of all arms).

    `theta = A^-1 b` with `A = ridge I + sum x x'` and `b = sum r x`; the bound of an arm is
    `x' theta + alpha sqrt(x' A^-1 x)`. Rewards are standardised, so that `alpha` is in units of
    their standard deviation. Pulls that are under way narrow the bounds as if they had brought
    what is expected, so that parallel workers do not all try the same arm.

    Args:
        alpha: Standard deviations of optimism, at least 0.
        ridge: Weight of the prior, more than 0.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, alpha: float = 1.0, ridge: float = 1.0) -> None:
        if alpha < 0 or ridge <= 0:
            raise ValueError(
                "`alpha >= 0` and `ridge > 0` must hold, but got "
                f"alpha={alpha:g}, ridge={ridge:g}."
            )
        self._alpha, self._ridge = alpha, ridge

    def bounds(self, arms: Array, tried: Array, rewards: Array, pending: Array) -> Array:
        """Return the upper confidence bound of each arm, in units of the rewards.

        Args:
            arms: `k x d`-dim.
            tried: `n x d`-dim.
            rewards: `n`-dim, larger is better.
            pending: `p x d`-dim, arms under way.
        """
        center, spread = _moments(rewards)
        A = self._ridge * np.eye(arms.shape[1]) + tried.T @ tried
        theta = np.linalg.solve(A, tried.T @ ((rewards - center) / spread))
        A += pending.T @ pending
        width = np.sqrt(np.einsum("kd,dk->k", arms, np.linalg.solve(A, arms.T)))
        bounds: Array = center + spread * (arms @ theta + self._alpha * width)
        return bounds


class NeuralLinear:
    """LinUCB on the last hidden layer of a small network (Riquelme et al. 2018).

    The network is trained anew on all rewards at hand, those of earlier merges included; features
    are the activations of its last hidden layer, and the features themselves, so that arms which
    differ little to the network are still told apart.

    Args:
        alpha: See `LinUCB`.
        ridge: See `LinUCB`.
        seed: Of the network.
        min_rewards: Below these the network is not used.
    """

    def __init__(
        self, alpha: float = 1.0, ridge: float = 1.0, seed: int = 0, min_rewards: int = 10
    ) -> None:
        self._linear = LinUCB(alpha, ridge)
        self._seed, self._min_rewards = seed, min_rewards

    def bounds(self, arms: Array, tried: Array, rewards: Array, pending: Array) -> Array:
        """Return the upper confidence bound of each arm; see `LinUCB.bounds`."""
        if len(rewards) < self._min_rewards:
            return self._linear.bounds(arms, tried, rewards, pending)
        center, spread = _moments(rewards)
        network = fit_quietly(_network(self._seed), tried, (rewards - center) / spread)
        learned = [
            np.hstack([x, _hidden(network, x)]) / np.sqrt(2) for x in (arms, tried, pending)
        ]
        return self._linear.bounds(learned[0], learned[1], rewards, learned[2])


def _moments(rewards: Array) -> tuple[float, float]:
    if len(rewards) == 0:
        return 0.0, 1.0
    spread = float(rewards.std())
    return float(rewards.mean()), spread if spread > 0 else 1.0


def _network(seed: int) -> Any:
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(
        hidden_layer_sizes=(16, 8), solver="lbfgs", alpha=1.0, max_iter=150, random_state=seed
    )


def _hidden(network: Any, rows: Array) -> Array:
    """Return the last hidden layer's activations, scaled to the length of a unit vector."""
    if len(rows) == 0:
        return np.zeros((0, network.coefs_[-1].shape[0]))
    values = rows
    for weights, bias in zip(network.coefs_[:-1], network.intercepts_[:-1], strict=True):
        values = np.maximum(values @ weights + bias, 0.0)
    scaled: Array = values / np.sqrt(max(float((values**2).sum(axis=1).mean()), 1e-12))
    return scaled
