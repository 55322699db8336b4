"""Structural similarity: of weights, or of what fine-tuning added to a common ancestor.

Weight distances alone predict merges badly: single weight metrics correlate with merged
performance by less than .2, and which of them help depends on the operator (arXiv 2601.22285).
They are cheap, and one part of a predictor's input.

Cost: one read of every file; for the subspaces two randomized singular value decompositions a
matrix. Memory: of the largest matrix, three times.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from statistics import fmean

import torch
from torch import Tensor

from ..merging import Checkpoint, is_tied, locate_all
from ..merging.engine import CHUNK
from .signals import Signals

# Directions of each matrix whose subspaces are compared.
_RANK = 8
_OVERSAMPLING = 8
_ITERATIONS = 2
_SMALLEST = 1e-20
_OUTSIDE = -1  # embeddings and head


@dataclass
class _Sums:
    """Inner products and counts over the elements of two vectors."""

    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    n: float = 0.0
    same_sign: float = 0.0

    def add(self, a: Tensor, b: Tensor) -> None:
        a, b = a.double(), b.double()
        self.aa += float(a @ a)
        self.bb += float(b @ b)
        self.ab += float(a @ b)
        self.n += a.numel()
        self.same_sign += float((a.sign() == b.sign()).sum())

    def merge(self, other: "_Sums") -> None:
        for entry in fields(self):
            setattr(self, entry.name, getattr(self, entry.name) + getattr(other, entry.name))

    @property
    def cosine(self) -> float:
        return self.ab / max(math.sqrt(self.aa * self.bb), _SMALLEST)

    @property
    def relative_distance(self) -> float:
        """Return `|a - b|` in units of the mean norm of both."""
        distance = math.sqrt(max(self.aa + self.bb - 2 * self.ab, 0.0))
        return 2 * distance / max(math.sqrt(self.aa) + math.sqrt(self.bb), _SMALLEST)

    @property
    def norm_ratio(self) -> float:
        """Return `|b| / |a|`."""
        return math.sqrt(self.bb / max(self.aa, _SMALLEST))

    @property
    def sign_agreement(self) -> float:
        return self.same_sign / max(self.n, 1.0)


def structural_signals(
    a: Checkpoint, b: Checkpoint, ancestor: Checkpoint | None = None, rank: int = _RANK
) -> Signals:
    """Compare the weights of two models, layer by layer.

    Profiles, one number a layer:

    - `weight_cosine` in [-1, 1], and `weight_distance` in [0, 2], `|a - b|` in units of the mean
      norm;
    - with an ancestor, of the task vectors: `task_cosine` in [-1, 1], `task_norm_ratio`,
      `|b| / |a|`, `task_sign_agreement` in [0, 1];
    - without one, `weight_sign_agreement` in [0, 1];
    - `subspace_overlap` in [0, 1]: of the leading left singular directions of the task vectors (of
      the weights without an ancestor), `|U_a' U_b|^2 / rank`, mean over matrices. Two random
      subspaces of `d` dimensions have `rank / d`.

    The same, but overlaps, as scalars over the whole models (`model.weight_cosine`, ...).

    Args:
        a: First of the ordered pair.
        b: Second, mergeable with it.
        ancestor: What both were fine-tuned from, mergeable with both.
        rank: Directions of a subspace.
    """
    parts = locate_all(a.layout, is_tied(a))
    weights: dict[int, _Sums] = {}
    tasks: dict[int, _Sums] = {}
    overlaps: dict[int, list[float]] = {}
    for name, part in parts.items():
        place = _OUTSIDE if part.index is None else part.index
        of_weights = weights.setdefault(place, _Sums())
        of_tasks = tasks.setdefault(place, _Sums())
        for x, y, z in _chunks(a, b, ancestor, name):
            of_weights.add(x, y)
            if z is not None:
                of_tasks.add(x - z, y - z)
        if place != _OUTSIDE and len(a.tensor(name).shape) == 2:
            overlaps.setdefault(place, []).append(_overlap(a, b, ancestor, name, rank))
    profiles = {
        name: tuple(values[layer] for layer in sorted(values) if layer != _OUTSIDE)
        for name, values in _named(weights, tasks if ancestor else None).items()
    }
    profiles["subspace_overlap"] = tuple(fmean(overlaps[layer]) for layer in sorted(overlaps))
    whole = _named({0: _total(weights)}, {0: _total(tasks)} if ancestor else None)
    return Signals({f"model.{name}": values[0] for name, values in whole.items()}, profiles)


def _named(
    weights: dict[int, _Sums], tasks: dict[int, _Sums] | None
) -> dict[str, dict[int, float]]:
    named = {
        "weight_cosine": {place: sums.cosine for place, sums in weights.items()},
        "weight_distance": {place: sums.relative_distance for place, sums in weights.items()},
    }
    if tasks is None:
        signs = {place: sums.sign_agreement for place, sums in weights.items()}
        return {**named, "weight_sign_agreement": signs}
    return {
        **named,
        "task_cosine": {place: sums.cosine for place, sums in tasks.items()},
        "task_norm_ratio": {place: sums.norm_ratio for place, sums in tasks.items()},
        "task_sign_agreement": {place: sums.sign_agreement for place, sums in tasks.items()},
    }


def _total(sums: dict[int, _Sums]) -> _Sums:
    total = _Sums()
    for part in sums.values():
        total.merge(part)
    return total


def _chunks(
    a: Checkpoint, b: Checkpoint, ancestor: Checkpoint | None, name: str
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    sources = [model.tensor(name) for model in (a, b)]
    third = None if ancestor is None else ancestor.tensor(name)
    for start in range(0, sources[0].numel(), CHUNK):
        stop = min(start + CHUNK, sources[0].numel())
        x, y = (source.read(start, stop) for source in sources)
        yield x, y, None if third is None else third.read(start, stop)


def _overlap(
    a: Checkpoint, b: Checkpoint, ancestor: Checkpoint | None, name: str, rank: int
) -> float:
    origin = None if ancestor is None else ancestor.tensor(name).load().float()
    bases = []
    for model in (a, b):
        matrix = model.tensor(name).load().float()
        bases.append(_leading(matrix if origin is None else matrix - origin, rank))
    return float((bases[0].T @ bases[1]).square().sum() / bases[0].shape[1])


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """Return the leading left singular vectors, by randomized projections with a fixed seed."""
    rank = min(rank, *matrix.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        size = min(rank + _OVERSAMPLING, *matrix.shape)
        U, _, _ = torch.svd_lowrank(matrix, q=size, niter=_ITERATIONS)
    return U[:, :rank]
