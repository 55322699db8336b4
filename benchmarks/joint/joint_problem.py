"""The synthetic merge family with several operators: alike, but not the same.

All operators nearly agree at the parents. Between them an operator acts more or less strongly
(weights to a power), moves the layers' shares, and costs both objectives something that is largest
half way.
"""

from functools import cached_property

import numpy as np
import torch
from problems import hypervolume
from problems.base import Array
from problems.synthetic import Shape, Synthetic

# Log deviations of the power and of the layers' shares; deviation of the price half way.
_POWER, _SHARES, _PRICE = 0.3, 0.4, 0.08


class OneOperator(Synthetic):
    """The problem of one operator.

    Args:
        seed: Of the family's problem.
        operator: Decides how it differs from the others; 0 is the family's problem itself.
        dim: Number of layers.
    """

    def __init__(self, seed: int, operator: int, dim: int) -> None:
        super().__init__(seed, Shape(), "independent", dim, f"operator {operator}")
        rng = np.random.default_rng([13, seed, operator])
        self._power, self._price = 1.0, 0.0
        if operator:
            self._power = float(np.exp(_POWER * rng.normal()))
            self._price = float(_PRICE * rng.normal())
            changed = self._shares.numpy() * np.exp(_SHARES * rng.normal(size=(2, dim)))
            self._shares = torch.from_numpy(changed / changed.sum(axis=1, keepdims=True))

    def truth(self, X: torch.Tensor) -> torch.Tensor:
        """Return the noise-free values, `n x 2`-dim."""
        X = X.clamp(0.0, 1.0)
        level = X.mean(dim=-1, keepdim=True)
        price = self._price * 4 * level * (1 - level)
        return super().truth(X.clamp_min(1e-9) ** self._power) - price


class JointProblem:
    """Several operators over the same layers.

    Args:
        seed: Of the family's problem.
        n_operators: How many.
        dim: Number of layers.
    """

    def __init__(self, seed: int, n_operators: int, dim: int) -> None:
        self.arms = [OneOperator(seed, operator, dim) for operator in range(n_operators)]
        self.names = self.arms[0].names
        self.reference = self.arms[0].reference

    @property
    def operators(self) -> list[str]:
        """Names of the operators."""
        return [f"operator {k}" for k in range(len(self.arms))]

    @cached_property
    def best_hypervolume(self) -> float:
        """Of the optima of all operators together."""
        optima: Array = np.concatenate([arm.optima for arm in self.arms])
        return hypervolume(optima, self.reference)
