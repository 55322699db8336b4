"""Merge one tensor, exactly the same way for every sink.

The candidate that was measured in place and the checkpoint that is exported must agree bit for
bit, so all go through `Merger.merge`: inputs cast to the study's dtype, float32 arithmetic over
chunks of one fixed size, one rounding at the end.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...errors import LayoutError
from .operators import Operator, Options

# 2**17 elements are 0.5 MB in float32: inputs and result stay in the second-level cache.
CHUNK = 1 << 17
_SMALL_NORM = 1e-7


class Source(Protocol):
    """A tensor that can be read in parts: resident, or in a file."""

    @property
    def shape(self) -> torch.Size:
        """Its shape."""

    def numel(self) -> int:
        """Number of elements."""

    def read(self, start: int, stop: int) -> Tensor:
        """Return elements `start` to `stop` of the flattened tensor as float32."""


@dataclass(frozen=True)
class Resident:
    """A tensor in memory, on any device.

    Args:
        tensor: Contiguous.
    """

    tensor: Tensor

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        return self.tensor.shape

    def numel(self) -> int:
        """Number of elements."""
        return self.tensor.numel()

    def read(self, start: int, stop: int) -> Tensor:
        """Return a part as float32; float32 tensors are not copied."""
        return self.tensor.view(-1)[start:stop].float()


@dataclass(frozen=True)
class Inputs:
    """One tensor in all models.

    Args:
        name: As in the checkpoint; decides the random masks.
        base: Weight 0.
        experts: Weight 1 each, of the base's shape.
    """

    name: str
    base: Source
    experts: Sequence[Source]

    def __post_init__(self) -> None:
        for expert in self.experts:
            if expert.shape != self.base.shape:
                raise LayoutError(
                    f"Tensors must have one shape in all models, but {self.name!r} is "
                    f"{tuple(self.base.shape)} in the base and {tuple(expert.shape)} in an expert."
                )


@dataclass(frozen=True)
class _Sparse:
    """What is kept of a task vector: flat mask, and the factor that restores its L1 norm."""

    mask: Tensor
    scale: float


class Merger:
    """Applies one operator to tensors.

    Args:
        operator: The formula.
        options: All of its parameters.
        seed: Of the random masks; with the tensor's name and the expert's place it decides each
            mask, so the order of tensors never matters.
        remember: Whether to keep the masks for the next candidate: they do not depend on its
            weights. Costs one byte an element and expert.
    """

    def __init__(
        self, operator: Operator, options: Options, seed: int = 0, remember: bool = False
    ) -> None:
        self.operator, self.options, self.seed = operator, options, seed
        self._memory: dict[tuple[str, int, float], _Sparse] | None = {} if remember else None

    def merge(
        self, inputs: Inputs, weights: Sequence[float], out: Tensor, density: float = 1.0
    ) -> None:
        """Write the merge of one tensor into `out`, in place.

        Args:
            inputs: The tensor in all models.
            weights: One number an expert. All 0 copies the base; one expert at 1 copies it,
                where the operator says that this is what it means.
            out: Receives the result: contiguous, any floating dtype, no alias of an input.
            density: Share of each task vector that is kept.
        """
        source = self._copied(inputs, weights, density)
        if source is not None:
            _copy(source, out)
        elif self.operator.elementwise:
            self._merge_chunks(inputs, weights, out, density)
        else:
            whole = [_whole(source) for source in (inputs.base, *inputs.experts)]
            out.copy_(self.operator.combine(whole[0], whole[1:], weights, self.options))

    def _copied(self, inputs: Inputs, weights: Sequence[float], density: float) -> Source | None:
        """Return the parent that the candidate equals at this tensor, if it equals one."""
        active = [k for k, weight in enumerate(weights) if weight != 0.0]
        if not active:
            return inputs.base
        plain = density >= 1 and self.options.get("lambda") == 1.0
        exact = self.operator.exact_ends or (self.operator.on_deltas and plain)
        if not exact or len(active) > 1 or weights[active[0]] != 1.0:
            return None
        return inputs.experts[active[0]]

    def _merge_chunks(
        self, inputs: Inputs, weights: Sequence[float], out: Tensor, density: float
    ) -> None:
        sparse = self._sparse(inputs, density)
        flat, n = out.view(-1), inputs.base.numel()
        for start in range(0, n, CHUNK):
            stop = min(start + CHUNK, n)
            base = inputs.base.read(start, stop)
            parts = [expert.read(start, stop) for expert in inputs.experts]
            if self.operator.on_deltas:
                parts = [part - base for part in parts]
            for part, kept in zip(parts, sparse, strict=False):
                part.mul_(kept.mask[start:stop])
                if kept.scale != 1.0:
                    part.mul_(kept.scale)
            flat[start:stop] = self.operator.combine(base, parts, weights, self.options)

    def _sparse(self, inputs: Inputs, density: float) -> list[_Sparse]:
        """Return what is kept of each task vector; nothing if all of it is."""
        if self.operator.sparsify is None or density >= 1:
            return []
        found = []
        for k in range(len(inputs.experts)):
            key = (inputs.name, k, density)
            if self._memory is None:
                found.append(self._sparsify(inputs, k, density))
            else:
                if key not in self._memory:
                    self._memory[key] = self._sparsify(inputs, k, density)
                found.append(self._memory[key])
        return found

    def _sparsify(self, inputs: Inputs, k: int, density: float) -> _Sparse:
        assert self.operator.sparsify is not None
        delta = _whole(inputs.experts[k]).sub_(_whole(inputs.base))
        generator = torch.Generator().manual_seed(_mask_seed(self.seed, k, inputs.name))
        mask = self.operator.sparsify(delta, density, self.options, generator).view(-1)
        scale = _l1_scale(delta.view(-1), mask) if self.options["rescale"] else 1.0
        return _Sparse(mask, scale)


def _whole(source: Source) -> Tensor:
    """Return a float32 copy in the tensor's own shape."""
    n = source.numel()
    first = source.read(0, min(CHUNK, n))
    whole = torch.empty(n, device=first.device)
    for start in range(0, n, CHUNK):
        stop = min(start + CHUNK, n)
        whole[start:stop] = source.read(start, stop)
    return whole.view(source.shape)


def _copy(source: Source, out: Tensor) -> None:
    """Copy without arithmetic; float32 holds every value of the narrower types."""
    flat, n = out.view(-1), source.numel()
    for start in range(0, n, CHUNK):
        stop = min(start + CHUNK, n)
        flat[start:stop] = source.read(start, stop)


def _l1_scale(delta: Tensor, mask: Tensor) -> float:
    """Return the factor that gives what is kept the L1 norm of the whole."""
    whole, kept = 0.0, 0.0
    for values, part in zip(delta.split(CHUNK), mask.split(CHUNK), strict=True):
        sizes = values.abs()
        whole += float(sizes.sum())
        kept += float(sizes.mul_(part).sum())
    return whole / kept if whole >= _SMALL_NORM and kept >= _SMALL_NORM else 1.0


def _mask_seed(seed: int, expert: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed}|{expert}|{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse tensors with NaN or infinities.

    Raises:
        LayoutError: With the tensor's name and how many there are.
    """
    for chunk in tensor.detach().reshape(-1).split(1 << 22):
        if not bool(torch.isfinite(chunk).all()):
            n = int((~torch.isfinite(tensor)).sum())
            raise LayoutError(
                f"Weights must be finite, but {name!r} has {n} NaN or infinite value(s). Mend the "
                "checkpoint, or lower the merge weights if it is a merge of finite ones."
            )


def checksum(tensors: Sequence[tuple[str, Tensor]]) -> str:
    """Return a SHA-256 over names, dtypes, shapes and bytes, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().cpu().view(-1).view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()
