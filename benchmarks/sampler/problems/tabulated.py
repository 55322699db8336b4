"""Real merges of the demo pair: a table of candidates, interpolated between them.

`evaluate_merges.py` evaluated the table. Every question's outcome is interpolated on its own,
with one kernel for all of them, so a candidate has a probability of a right answer and an
expected length for each question. The truth is the mean over all questions; a measurement asks
70 of them, the same ones of every candidate.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .base import Array, Measurement, Problem

TABLE = Path(__file__).parent / "demo_merges.npz"
N_QUESTIONS = 70
# Best at predicting every tenth candidate from the others: R2 .95 for accuracy, .97 for tokens.
_LENGTHSCALE, _RIDGE = 0.7, 0.1


@cache
def _table() -> tuple[list[str], Tensor, Tensor]:
    """Return names, the table's weights, and `K^-1 Y` for right answers and lengths."""
    content = np.load(TABLE)
    tokens = content["tokens"].astype(float)
    correct = np.unpackbits(content["correct"], axis=1, count=tokens.shape[1]).astype(float)
    weights = torch.from_numpy(content["weights"].astype(float))
    outcomes = torch.from_numpy(np.concatenate([correct, tokens], axis=1))
    mean = outcomes.mean(dim=0)
    K = _kernel(weights, weights) + _RIDGE * torch.eye(len(weights), dtype=torch.double)
    solved = torch.linalg.solve(K, outcomes - mean)
    return content["names"].tolist(), weights, torch.cat([solved, mean[None]])


def _kernel(A: Tensor, B: Tensor) -> Tensor:
    return torch.exp(-0.5 * (torch.cdist(A, B) / _LENGTHSCALE).square())


class Tabulated(Problem):
    """Layer-wise merges of the demo pair.

    Args:
        seed: Decides the 70 questions that a search may see, or how they are dealt.
        rotating: Whether each candidate answers its share of all instead.
    """

    def __init__(self, seed: int, rotating: bool = False) -> None:
        names, _, _ = _table()
        ends = self._outcomes(torch.tensor([[0.0] * len(names), [1.0] * len(names)]).double())
        accuracy, tokens = ends[0].mean(dim=1), ends[1].mean(dim=1)
        self._low = torch.stack([accuracy[0], -tokens[1]])
        self._range = torch.stack([accuracy[1] - accuracy[0], tokens[1] - tokens[0]])
        n_all, self._seed = ends.shape[2], seed
        self._n_all = n_all if rotating else None
        self._asked = np.random.default_rng([13, seed]).permutation(n_all)[:N_QUESTIONS]
        super().__init__(
            "demo merges", len(names), np.array([-0.1, -0.1]), np.full(len(names), 0.5)
        )

    @property
    def names(self) -> list[str]:
        """The names of the merge's own variables."""
        return _table()[0]

    def truth(self, X: Tensor) -> Tensor:
        """Return accuracy and saved tokens over all questions, between the parents' values."""
        _, weights, solved = _table()
        correct, tokens = (part.mean(dim=-1) for part in solved.chunk(2, dim=-1))
        columns = torch.stack([correct, -tokens], dim=-1)
        means = _kernel(X, weights) @ columns[:-1] + columns[-1]
        return (means - self._low) / self._range

    @property
    def deal(self) -> int:
        """Which way its questions are dealt."""
        return self._seed

    @property
    def n_pool(self) -> int | None:
        """Questions that a search deals from; None where questions do not rotate."""
        return self._n_all

    def measure(
        self, x: Array, rng: np.random.Generator, hand: Sequence[int] | None = None
    ) -> Measurement:
        """Ask the problem's 70 questions, or a hand of all; an outcome near one half is drawn."""
        asked = self._asked if hand is None else np.array(hand)
        outcomes = self._outcomes(torch.from_numpy(x)[None])[:, 0, asked].numpy()
        correct, tokens = outcomes
        # Greedy answers are right or wrong: the same threshold for every candidate.
        n = N_QUESTIONS if self._n_all is None else self._n_all
        thresholds = np.random.default_rng(17).uniform(0.3, 0.7, size=n)
        if hand is not None:
            thresholds = thresholds[asked]
        right = (correct > thresholds).astype(float)
        rows = np.stack([right, -tokens])
        values, errors = rows.mean(axis=1), rows.std(axis=1, ddof=1) / np.sqrt(N_QUESTIONS)
        low, span = self._low.numpy(), self._range.numpy()
        told = (rows - low[:, None]) / span[:, None]
        errors = np.maximum(errors, 1e-3) / span
        return Measurement((values - low) / span, errors, None if hand is None else told)

    def _outcomes(self, X: Tensor) -> Tensor:
        """Return right answers and lengths, a `2 x n x questions`-dim tensor."""
        _, weights, solved = _table()
        flat = _kernel(X, weights) @ solved[:-1] + solved[-1]
        correct, tokens = flat.chunk(2, dim=-1)
        return torch.stack([correct.clamp(0.0, 1.0), tokens.clamp_min(1.0)])
