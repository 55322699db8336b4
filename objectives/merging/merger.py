"""Merge one tensor, exactly the same way for every sink.

The candidate that was measured in place and the checkpoint that is exported must agree bit for
bit, so all go through `Merger.merge`: inputs cast to the study's dtype, float32 arithmetic over
chunks of one fixed size, one rounding at the end.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import LayoutError
from .operators import Operator, Options
from .sources import Axis, Cut, Piece, Source

# 2**18 elements are 1 MB in float32: measured best of 2**17 to 2**19 for memory and files alike.
CHUNK = 1 << 18
# On accelerators every chunk costs launches.
_CHUNK_ON_ACCELERATOR = 1 << 26
_SMALL_NORM = 1e-7
# Not finite: an exponent of all ones. As integers with a sign no positive number is as great, and
# without one no negative number. Comparing bits takes a tenth of `isfinite`'s time on CPUs.
_EXPONENTS = {
    torch.float32: (torch.int32, np.uint32, 0x7F800000),
    torch.bfloat16: (torch.int16, np.uint16, 0x7F80),
    torch.float16: (torch.int16, np.uint16, 0x7C00),
}


def chunk_for(device: torch.device) -> int:
    """Return how many elements are best merged at once on a device."""
    return CHUNK if device.type == "cpu" else _CHUNK_ON_ACCELERATOR


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
        return self.stored(start, stop).float()

    def stored(self, start: int, stop: int) -> Tensor:
        """Return a part without copying it."""
        return self.tensor.view(-1)[start:stop]


@dataclass(frozen=True)
class ParentTensors:
    """One tensor in all models.

    Args:
        name: As in the checkpoint; decides the random masks.
        base: Weight 0.
        experts: Weight 1 each, of the base's shape.
    """

    name: str
    base: Source
    experts: Sequence[Source]

    def only(self, experts: Sequence[int]) -> "ParentTensors":
        """Return the same with some experts alone, by their numbers from 1."""
        return ParentTensors(self.name, self.base, [self.experts[k - 1] for k in experts])

    def __post_init__(self) -> None:
        for expert in self.experts:
            if expert.shape != self.base.shape:
                raise LayoutError(
                    f"Tensors must have one shape in all models, but {self.name!r} is "
                    f"{tuple(self.base.shape)} in the base and {tuple(expert.shape)} in an expert."
                )


@dataclass(frozen=True)
class _Sparse:
    """What is kept of a task vector: flat bytes of 0 and 1, and the factor that rescales it."""

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
            weights. Costs one byte per element and expert.
        chunk: Elements merged at once: few enough for a CPU's cache, many for a GPU, where
            every chunk costs launches.
    """

    def __init__(
        self,
        operator: Operator,
        options: Options,
        seed: int = 0,
        remember: bool = False,
        chunk: int = CHUNK,
    ) -> None:
        self.operator, self.options, self.seed = operator, options, seed
        self._chunk = chunk
        self._memory: dict[tuple[str, int, float], _Sparse] | None = {} if remember else None

    def merge(
        self,
        inputs: ParentTensors,
        weights: Sequence[float] | Cut,
        out: Tensor,
        density: float = 1.0,
    ) -> None:
        """Write the merge of one tensor into `out`, in place.

        Args:
            inputs: The tensor in all models.
            weights: One number per expert, or those of each piece. All 0 copies the base; one
                expert at 1 copies it, where the operator says that this is what it means.
            out: Receives the result: contiguous, any floating dtype, no alias of an input.
            density: Share of each task vector that is kept.
        """
        flat = out.view(-1)
        for start, part in self.parts(inputs, weights, density, flat):
            target = flat[start : start + part.numel()]
            if part.data_ptr() != target.data_ptr():
                target.copy_(part)

    def parts(
        self,
        inputs: ParentTensors,
        weights: Sequence[float] | Cut,
        density: float = 1.0,
        into: Tensor | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield the merge of one tensor as (first element, flat values), in order.

        The values are float32, or already rounded to the stored precision.

        Args:
            inputs: The tensor in all models.
            weights: One number an expert, or those of each piece.
            density: Share of each task vector that is kept.
            into: Flat memory for the values, used where the operator can write there itself: one
                pass over the memory less. Defaults to None: memory of their own.
        """
        if isinstance(weights, Cut):
            yield from self._pieces(inputs, weights)
            return
        if len(inputs.experts) > 1 and self.operator.max_experts == 1:
            inputs, weights = self._chained(inputs, weights, density)
        source = self._copied(inputs, weights, density)
        active = [k for k, weight in enumerate(weights) if weight != 0.0]
        if source is not None:
            for start, stop in _ranges(source.numel(), self._chunk):
                yield start, source.stored(start, stop)
        elif self.operator.between is not None and len(active) == 1:
            expert, weight = inputs.experts[active[0]], weights[active[0]]
            for start, stop in _ranges(inputs.base.numel(), self._chunk):
                pair = inputs.base.stored(start, stop), expert.stored(start, stop)
                target = _alike(into, pair[0], start, stop)
                yield start, self.operator.between(*pair, weight, out=target)
        elif self.operator.elementwise:
            yield from self._merge_chunks(inputs, weights, density)
        else:
            whole = [_whole(source) for source in (inputs.base, *inputs.experts)]
            merged = self.operator.combine(whole[0], whole[1:], weights, self.options)
            yield 0, merged.reshape(-1)

    def _chained(
        self, inputs: ParentTensors, weights: Sequence[float], density: float
    ) -> tuple[ParentTensors, Sequence[float]]:
        """Merge all experts but the last, one after the other, in float32; return what is left."""
        base = inputs.base
        for expert, weight in zip(inputs.experts[:-1], weights[:-1], strict=True):
            merged = _room(base)
            self.merge(ParentTensors(inputs.name, base, [expert]), (weight,), merged, density)
            base = Resident(merged)
        return ParentTensors(inputs.name, base, inputs.experts[-1:]), weights[-1:]

    def _pieces(self, inputs: ParentTensors, cut: Cut) -> Iterator[tuple[int, Tensor]]:
        """Yield the merge of a tensor whose pieces have weights of their own."""
        rows, count = inputs.base.shape[0], len(cut.weights)
        if cut.axis == 0:
            for index, weights in enumerate(cut.weights):
                piece = _piece(inputs, 0, index, count)
                first = index * piece.base.numel()
                for start, part in self.parts(piece, weights):
                    yield first + start, part
            return
        width = inputs.base.numel() // rows
        for top, bottom in _ranges(rows, max(1, self._chunk // width)):
            block = _rows(inputs, top * width, bottom * width)
            merged = []
            for index, weights in enumerate(cut.weights):
                parts = self.parts(_piece(block, 1, index, count), weights)
                merged.append(
                    torch.cat([part.float() for _, part in parts]).view(bottom - top, -1)
                )
            yield top * width, torch.cat(merged, dim=1).view(-1)

    def _copied(
        self, inputs: ParentTensors, weights: Sequence[float], density: float
    ) -> Source | None:
        """Return the parent that the candidate equals at this tensor, if it equals one."""
        active = [k for k, weight in enumerate(weights) if weight != 0.0]
        if not active:
            return inputs.base
        exact = self.operator.keeps_expert(self.options, density)
        if not exact or len(active) > 1 or weights[active[0]] != 1.0:
            return None
        return inputs.experts[active[0]]

    def _merge_chunks(
        self, inputs: ParentTensors, weights: Sequence[float], density: float
    ) -> Iterator[tuple[int, Tensor]]:
        sparse = self._sparse(inputs, density)
        for start, stop in _ranges(inputs.base.numel(), self._chunk):
            base = inputs.base.read(start, stop)
            parts = [expert.read(start, stop) for expert in inputs.experts]
            if self.operator.on_deltas:
                parts = [part - base for part in parts]
            for part, kept in zip(parts, sparse, strict=False):
                part.mul_(kept.mask[start:stop])
                if kept.scale != 1.0:
                    part.mul_(kept.scale)
            yield start, self.operator.combine(base, parts, weights, self.options)

    def _sparse(self, inputs: ParentTensors, density: float) -> list[_Sparse]:
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

    def _sparsify(self, inputs: ParentTensors, k: int, density: float) -> _Sparse:
        assert self.operator.sparsify is not None
        size = _absolute_delta(inputs.experts[k], inputs.base)
        check_finite(inputs.name, size)  # a mask could hide what is not
        generator = torch.Generator().manual_seed(_mask_seed(self.seed, k, inputs.name))
        mask = self.operator.sparsify(size, density, self.options, generator)
        flat = mask.view(-1).view(torch.uint8)
        scale = _l1_scale(size.view(-1), flat) if self.options["rescale"] else 1.0
        return _Sparse(flat, scale)


def _piece(inputs: ParentTensors, axis: Axis, index: int, count: int) -> ParentTensors:
    base, *experts = (Piece(s, axis, index, count) for s in (inputs.base, *inputs.experts))
    return ParentTensors(inputs.name, base, experts)


def _rows(inputs: ParentTensors, start: int, stop: int) -> ParentTensors:
    """Return whole rows of a matrix, read once."""
    width = inputs.base.shape[1]
    base, *experts = (
        Resident(source.stored(start, stop).view(-1, width))
        for source in (inputs.base, *inputs.experts)
    )
    return ParentTensors(inputs.name, base, experts)


def _alike(into: Tensor | None, part: Tensor, start: int, stop: int) -> Tensor | None:
    """Return where a part's result can be written without a conversion; None if nowhere."""
    if into is None or (into.dtype, into.device) != (part.dtype, part.device):
        return None
    return into[start:stop]


def _absolute_delta(expert: Source, base: Source) -> Tensor:
    """Return `|expert - base|` in the tensor's own shape."""
    size = _room(base)
    flat = size.view(-1)
    for start, stop in _ranges(base.numel()):
        part = flat[start:stop]
        torch.sub(expert.read(start, stop), base.read(start, stop), out=part).abs_()
    return size


def _whole(source: Source) -> Tensor:
    """Return a float32 copy in the tensor's own shape."""
    whole = _room(source)
    flat = whole.view(-1)
    for start, stop in _ranges(source.numel()):
        flat[start:stop] = source.read(start, stop)
    return whole


def _room(source: Source) -> Tensor:
    """Return float32 memory of a tensor's shape, on its device; its values are undefined."""
    return torch.empty(source.shape, device=source.read(0, min(1, source.numel())).device)


def _ranges(n: int, chunk: int = CHUNK) -> Iterator[tuple[int, int]]:
    """Yield the bounds of the chunks of `n` elements."""
    for start in range(0, n, chunk):
        yield start, min(start + chunk, n)


def _l1_scale(size: Tensor, mask: Tensor) -> float:
    """Return the factor that gives what is kept the L1 norm of the whole."""
    whole, kept = 0.0, 0.0
    for values, part in zip(size.split(CHUNK), mask.split(CHUNK), strict=True):
        whole += float(values.sum())
        kept += float((values * part).sum())
    return whole / kept if whole >= _SMALL_NORM and kept >= _SMALL_NORM else 1.0


def _mask_seed(seed: int, expert: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed}|{expert}|{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def check_finite(name: str, tensor: Tensor) -> None:
    """Refuse tensors with NaN or infinities.

    Raises:
        LayoutError: With the tensor's name and how many there are.
    """
    if not _is_finite(tensor.detach().reshape(-1)):
        n, half = int((~torch.isfinite(tensor)).sum()), tensor.dtype == torch.float16
        raise LayoutError(
            f"Weights must be finite, but {name!r} has {n} NaN or infinite value(s) in "
            f"{tensor.dtype}. Mend the checkpoint{', choose another models.dtype' * half}, or "
            "lower the merge weights if it is a merge of finite ones."
        )


def _is_finite(flat: Tensor) -> bool:
    if flat.dtype not in _EXPONENTS:
        return bool(torch.isfinite(flat).all())
    if flat.device.type != "cpu":  # one pass and one wait: NaN is kept in both
        return flat.numel() == 0 or bool(torch.stack(torch.aminmax(flat)).isfinite().all())
    signed, unsigned, all_ones = _EXPONENTS[flat.dtype]
    for chunk in flat.split(CHUNK):
        bits = chunk.view(signed).numpy()
        negative_ones = all_ones + torch.iinfo(signed).max + 1
        if bits.max(initial=0) >= all_ones or bits.view(unsigned).max(initial=0) >= negative_ones:
            return False
    return True


def checksum(tensors: Sequence[tuple[str, Tensor]]) -> str:
    """Return a SHA-256 over names, dtypes, shapes and bytes, in the order given."""
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().contiguous().cpu().view(-1).view(torch.uint8)
        digest.update(flat.numpy().tobytes())
    return digest.hexdigest()
