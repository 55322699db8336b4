"""Structural similarity: of weights, or of what fine-tuning added to a common ancestor.

Weight distances alone predict merges badly: single weight metrics correlate with merged
performance by less than .2, and which of them help depends on the operator (arXiv 2601.22285).
They are cheap, and one part of a predictor's input.

Cost: one read of every file, and two inner products an element and pair of models; for the
subspaces a randomized singular value decomposition a matrix and model. Memory: of every model one
chunk and the leading directions of one matrix; of one model, the largest matrix three times.
"""

import math
from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor

from ..checkpoints import Checkpoint, tensor_table
from ..merging import locate_all
from ..merging.merger import CHUNK
from .signals import Pair, Signals

# Directions of each matrix whose subspaces are compared.
_RANK = 8
_OVERSAMPLING = 8
_ITERATIONS = 2
_SMALLEST = 1e-20
_OUTSIDE = -1  # embeddings and head


class _Gram:
    """Inner products and agreeing signs of `n` vectors that come in pieces.

    Args:
        n: Number of vectors.
    """

    def __init__(self, n: int) -> None:
        self.inner = torch.zeros(n, n, dtype=torch.double)
        self.agree = torch.zeros(n, n, dtype=torch.double)
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Take the next piece, `n x m`-dim."""
        exact, signs = rows.double(), rows.sign()
        self.inner += exact @ exact.T
        for sign in (-1, 0, 1):
            same = (signs == sign).float()
            self.agree += (same @ same.T).double()
        self.count += rows.shape[1]

    def __add__(self, other: "_Gram") -> "_Gram":
        total = _Gram(len(self.inner))
        total.inner, total.agree = self.inner + other.inner, self.agree + other.agree
        total.count = self.count + other.count
        return total

    def cosine(self, i: int, j: int) -> float:
        scale = self._norm(i) * self._norm(j)
        return float(self.inner[i, j]) / max(scale, _SMALLEST)

    def relative_distance(self, i: int, j: int) -> float:
        """Return `|a - b|` in units of the mean norm of both."""
        a, b = self._norm(i), self._norm(j)
        distance = math.sqrt(max(a * a + b * b - 2 * float(self.inner[i, j]), 0.0))
        return 2 * distance / max(a + b, _SMALLEST)

    def norm_ratio(self, i: int, j: int) -> float:
        """Return `|b| / |a|`."""
        return self._norm(j) / max(self._norm(i), _SMALLEST)

    def sign_agreement(self, i: int, j: int) -> float:
        return float(self.agree[i, j]) / max(self.count, 1)

    def _norm(self, i: int) -> float:
        return math.sqrt(float(self.inner[i, i]))


def structural_signals(
    models: Sequence[Checkpoint], ancestor: Checkpoint | None = None, rank: int = _RANK
) -> dict[Pair, Signals]:
    """Compare the weights of every two models, layer by layer.

    Profiles, one number per layer:

    - `weight_cosine` in [-1, 1], and `weight_distance` in [0, 2], `|a - b|` in units of the mean
      norm;
    - with an ancestor, of the task vectors: `task_cosine` in [-1, 1], `task_norm_ratio`,
      `|b| / |a|`, `task_sign_agreement` in [0, 1];
    - without one, `weight_sign_agreement` in [0, 1];
    - `task_subspace_overlap` (`weight_subspace_overlap` without an ancestor) in [0, 1]: of the
      leading left singular directions, `|U_a' U_b|^2 / rank`, mean over the layer's matrices. Two
      random subspaces of `d` dimensions have `rank / d`.

    The same, but overlaps, as scalars over the whole models (`model.weight_cosine`, ...).

    Args:
        models: Mergeable with each other.
        ancestor: What all were fine-tuned from, mergeable with them.
        rank: Directions of a subspace.

    Returns:
        The signals of each ordered pair of two models, by their places.
    """
    table = tensor_table(models[0])
    parts = locate_all(table.merged, table.tied)
    weights: dict[int, _Gram] = {}
    tasks: dict[int, _Gram] = {}
    overlaps: dict[int, list[Tensor]] = {}
    for name, part in parts.items():
        place = _OUTSIDE if part.index is None else part.index
        of_weights = weights.setdefault(place, _Gram(len(models)))
        of_tasks = tasks.setdefault(place, _Gram(len(models)))
        _add(of_weights, of_tasks, models, ancestor, name)
        if place != _OUTSIDE and len(models[0].tensor(name).shape) == 2:
            overlaps.setdefault(place, []).append(_overlaps(models, ancestor, name, rank))
    sums = weights if ancestor is None else tasks
    kind = "weight" if ancestor is None else "task"
    pairs = [(i, j) for i in range(len(models)) for j in range(len(models)) if i != j]
    return {
        (i, j): _signals(weights, sums, kind, (i, j))
        | Signals({}, {f"{kind}_subspace_overlap": _profile(overlaps, i, j)})
        for i, j in pairs
    }


def _add(
    weights: _Gram,
    tasks: _Gram,
    models: Sequence[Checkpoint],
    ancestor: Checkpoint | None,
    name: str,
) -> None:
    table = tensor_table(models[0])
    sources = [found for model in models if (found := table.source(model, name)) is not None]
    origin = None if ancestor is None else table.source(ancestor, name)
    for start in range(0, sources[0].numel(), CHUNK):
        stop = min(start + CHUNK, sources[0].numel())
        rows = torch.stack([source.read(start, stop) for source in sources])
        weights.add(rows)
        if origin is not None:
            tasks.add(rows - origin.read(start, stop))


def _overlaps(
    models: Sequence[Checkpoint], ancestor: Checkpoint | None, name: str, rank: int
) -> Tensor:
    """Return the overlap of one matrix in every two models, `n x n`-dim."""
    origin = None if ancestor is None else ancestor.tensor(name).load().float()
    bases = []
    for model in models:
        matrix = model.tensor(name).load().float()
        bases.append(_leading(matrix if origin is None else matrix - origin, rank))
    stacked = torch.stack(bases)
    inner = torch.einsum("ird,jrk->ijdk", stacked, stacked)
    return inner.square().sum(dim=(2, 3)) / stacked.shape[2]


def _profile(overlaps: dict[int, list[Tensor]], i: int, j: int) -> tuple[float, ...]:
    return tuple(fmean(float(o[i, j]) for o in overlaps[layer]) for layer in sorted(overlaps))


def _signals(weights: dict[int, _Gram], sums: dict[int, _Gram], kind: str, pair: Pair) -> Signals:
    layers = sorted(layer for layer in weights if layer != _OUTSIDE)
    by_layer = [_numbers(weights[layer], sums[layer], kind, pair) for layer in layers]
    whole = _numbers(_total(weights), _total(sums), kind, pair)
    return Signals(
        {f"model.{name}": value for name, value in whole.items()},
        {name: tuple(numbers[name] for numbers in by_layer) for name in whole},
    )


def _numbers(weights: _Gram, sums: _Gram, kind: str, pair: Pair) -> dict[str, float]:
    numbers = {
        "weight_cosine": weights.cosine(*pair),
        "weight_distance": weights.relative_distance(*pair),
        f"{kind}_sign_agreement": sums.sign_agreement(*pair),
    }
    if kind == "task":
        numbers["task_cosine"] = sums.cosine(*pair)
        numbers["task_norm_ratio"] = sums.norm_ratio(*pair)
    return numbers


def _total(sums: dict[int, _Gram]) -> _Gram:
    first, *rest = sums.values()
    return sum(rest, start=first)


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """Return the leading left singular vectors, by randomized projections with a fixed seed."""
    rank = min(rank, *matrix.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        size = min(rank + _OVERSAMPLING, *matrix.shape)
        U, _, _ = torch.svd_lowrank(matrix, q=size, niter=_ITERATIONS)
    return U[:, :rank]
