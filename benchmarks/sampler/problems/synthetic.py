"""A synthetic merge family: few layers matter, not the same ones for both objectives.

Objective 1 is accuracy, objective 2 the tokens saved; weight 0 is the cheap parent (0, 1) and
weight 1 the strong parent (1, 0), in units of the difference between the parents. Every layer
adds its share of a concave profile whose optimum lies inside the box; neighbouring layers at
different weights cost both objectives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.special import ndtri

from .base import Array, Measurement, Problem

Noise = Literal["independent", "shared", "rotating"]
N_QUESTIONS, N_POOL = 70, 560
_LOW, _RANGE = 0.25, 0.45  # accuracy of the cheap parent, and what the strong one adds
_LONG, _SPREAD = 2.0, 0.8  # extra tokens of the strong parent, log-deviation over questions
_N_WAVES = 64
_STEP_AT, _STEP_WIDTH = 0.7, 0.03


@dataclass(frozen=True)
class Shape:
    """How a problem of the family looks.

    Args:
        n_influential: Layers that matter for one objective.
        background: Share of the effect that is spread over all layers.
        roughness: Price of jumps between neighbouring layers.
        steepness: Of a sigmoid on top of the sum; 0 for none.
        coupling: Price of disagreement between distant influential layers.
        step: Share of both objectives that changes within a narrow range of weights, as reasoning
            sets in at once: at uniform weights between .6 and .8.
        together: Whether the same layers make both objectives step.
    """

    n_influential: int = 5
    background: float = 0.1
    roughness: float = 0.3
    steepness: float = 0.0
    coupling: float = 0.0
    step: float = 0.0
    together: bool = False
    peaks: tuple[float, float] = (0.7, 1.25)


class Synthetic(Problem):
    """One problem of the family.

    Args:
        seed: Decides the layers, and the questions where they are shared.
        shape: How it looks.
        noise: Every evaluation draws its own questions ("independent"), or all candidates
            answer the same ones greedily ("shared"), or each its share of a pool ("rotating").
        dim: Number of layers.
        name: In tables.
    """

    def __init__(
        self, seed: int, shape: Shape, noise: Noise = "independent", dim: int = 36, name: str = ""
    ) -> None:
        rng = np.random.default_rng([7, seed])
        self.shape, self.noise = shape, noise
        shares = np.stack([_shares(rng, dim, shape) for _ in range(2)])
        self._shares = torch.from_numpy(shares)
        self._peaks = torch.from_numpy(rng.uniform(*shape.peaks, size=(2, dim)))
        importance = _known_importance(rng, shares.sum(axis=0))
        super().__init__(f"{name or 'synthetic'}/{noise}", dim, np.array([-0.2, -0.2]), importance)
        n = N_POOL if noise == "rotating" else N_QUESTIONS
        self._questions = _Questions(rng, shares.mean(axis=0), n)

    @property
    def n_pool(self) -> int | None:
        """Questions that a search deals from; None where questions do not rotate."""
        return N_POOL if self.noise == "rotating" else None

    def truth(self, X: torch.Tensor) -> torch.Tensor:
        """Return the noise-free values; see the module."""
        towards = torch.stack([X, 1.0 - X], dim=-2)  # n x 2 x dim
        peaks = self._peaks
        profile = 1.0 - (1.0 - towards / peaks).square()
        total = (self._shares * profile).sum(dim=-1)
        if self.shape.steepness:
            total = _sigmoid(total, self.shape.steepness)
        if self.shape.step:
            shares = (
                self._shares.mean(dim=0).expand(2, -1) if self.shape.together else self._shares
            )
            level = (X[..., None, :] * shares).sum(dim=-1)
            phase = torch.sigmoid((level - _STEP_AT) / _STEP_WIDTH)
            phase = torch.stack([phase[..., 0], 1.0 - phase[..., 1]], dim=-1)
            total = (1.0 - self.shape.step) * total + self.shape.step * phase
        jumps = (X[:, 1:] - X[:, :-1]).square().mean(dim=-1)
        price = self.shape.roughness * jumps
        if self.shape.coupling:
            mean = (X * self._shares.mean(0)).sum(-1, keepdim=True)
            spread = (self._shares.mean(0) * (X - mean).square()).sum(-1)
            price = price + self.shape.coupling * spread
        return total - price.unsqueeze(-1)

    def measure(
        self, x: Array, rng: np.random.Generator, hand: Sequence[int] | None = None
    ) -> Measurement:
        """Answer 70 questions, or those of a hand."""
        with torch.no_grad():
            value, saved = self.truth(torch.from_numpy(x)[None])[0].tolist()
        p = float(np.clip(_LOW + _RANGE * value, 0.02, 0.98))
        tokens = max(1.0 + _LONG * (1.0 - saved), 0.2)
        fixed = self.noise != "independent"
        answers = self._questions if fixed else _Questions(rng, None, N_QUESTIONS)
        correct, lengths = answers.ask(x, p, tokens)
        if hand is not None:
            correct, lengths = correct[list(hand)], lengths[list(hand)]
        share, n = correct.mean(), len(correct)
        # Agresti-Coull keeps the error above zero where all answers agree.
        smoothed = (correct.sum() + 2) / (n + 4)
        error = np.sqrt(smoothed * (1 - smoothed) / (n + 4))
        length, length_error = lengths.mean(), lengths.std(ddof=1) / np.sqrt(n)
        told = np.stack([(correct - _LOW) / _RANGE, 1.0 - (lengths - 1.0) / _LONG])
        return Measurement(
            np.array([(share - _LOW) / _RANGE, 1.0 - (length - 1.0) / _LONG]),
            np.array([error / _RANGE, length_error / _LONG]),
            None if hand is None else told,
        )


class _Questions:
    """Questions: a difficulty each, and a part that varies smoothly with the weights."""

    def __init__(self, rng: np.random.Generator, shares: Array | None, n: int) -> None:
        self._shares = shares
        self._difficulty = rng.normal(size=(2, n))
        if shares is not None:
            shape = (2, _N_WAVES, len(shares))
            self._frequency = rng.normal(size=shape) * np.sqrt(shares) * 2.5
            self._phase = rng.uniform(0, 2 * np.pi, size=(2, _N_WAVES))
            self._amplitude = rng.normal(size=(2, _N_WAVES, n)) * np.sqrt(2 / _N_WAVES)

    def ask(self, x: Array, p: float, tokens: float) -> tuple[Array, Array]:
        """Return whether each answer is right, and its length."""
        hard, long = self._difficulty
        if self._shares is not None:
            waves = np.cos(self._frequency @ x + self._phase)
            smooth = np.einsum("jw,jwq->jq", waves, self._amplitude)
            hard, long = (0.8 * self._difficulty + 0.6 * smooth).tolist()
        correct = (ndtri(p) > np.asarray(hard)).astype(float)
        lengths = tokens * np.exp(_SPREAD * np.asarray(long) - _SPREAD**2 / 2)
        return correct, lengths


def _shares(rng: np.random.Generator, dim: int, shape: Shape) -> Array:
    """Return every layer's share of the effect; they sum to one."""
    shares = np.full(dim, shape.background / dim)
    chosen = rng.choice(dim, size=shape.n_influential, replace=False)
    strength = rng.gamma(2.0, size=shape.n_influential)
    shares[chosen] += (1 - shape.background) * strength / strength.sum()
    return shares


def _known_importance(rng: np.random.Generator, shares: Array) -> Array:
    """Return an importance in [0, 1] that correlates with the truth at about .85."""
    true = (shares - shares.mean()) / shares.std()
    noise = rng.normal(size=len(shares))
    noise -= noise.mean() + true * (noise @ true) / len(true)
    noise /= noise.std()
    mixed = 0.85 * true + np.sqrt(1 - 0.85**2) * noise
    scaled: Array = (mixed - mixed.min()) / (mixed.max() - mixed.min())
    return scaled


def _sigmoid(total: torch.Tensor, steepness: float) -> torch.Tensor:
    def link(value: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(steepness * (value - 0.5))

    low, high = link(torch.zeros(())), link(torch.ones(()))
    return (link(total) - low) / (high - low)
