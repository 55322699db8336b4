"""Parameter importance: how far fine-tuning moved the tensors that a variable controls."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import torch

from ..checkpoints import Checkpoint, tensor_table
from ..merging import MergePlan
from ..merging.merger import CHUNK
from ..merging.sources import Source

Norm = Literal["relative", "absolute"]
Tensors = Literal["all", "matrices"]


def task_vector_norms(
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    plan: MergePlan,
    norm: Norm = "relative",
    tensors: Tensors = "all",
) -> dict[str, float]:
    """Return the norm of what fine-tuning added, over all tensors of each search variable.

    The tensors of a variable are pooled into one vector (Frobenius norms). SIP-BMM averages the
    norms of single tensors, AP-BMM their relative norms; there the few numbers of a
    normalisation weigh as much as a matrix. Streamed in parts of a tensor.

    Args:
        base: Weight 0.
        experts: Weight 1 each.
        plan: The search variables.
        norm: "relative" is `||expert - base|| / ||base||` (AP-BMM), "absolute" without the
            divisor (SIP-BMM).
        tensors: "matrices" leaves out vectors: norms and biases.

    Returns:
        Parameter name -> norm of the task vector, 0 where nothing was moved.
    """
    moved: dict[str, float] = defaultdict(float)
    total: dict[str, float] = defaultdict(float)
    table = tensor_table(base)
    for group, name in _chosen(base, plan, tensors):
        origin = plan.piece_of(group, name, base.tensor(name))
        total[group] += _square(origin) if norm == "relative" else 0.0
        for k, expert in enumerate(experts, start=1):
            own = table.source(expert, name)
            assert own is not None, "checked when it was opened"
            moved[plan.parameter(group, k)] += _square(plan.piece_of(group, name, own), origin)
    squares = total if norm == "relative" else dict.fromkeys(plan.groups, 1.0)
    return {
        name: math.sqrt(moved[name] / squares[group]) if moved[name] else 0.0
        for group in plan.groups
        for name in (plan.parameter(group, k) for k in range(1, len(experts) + 1))
    }


def _chosen(base: Checkpoint, plan: MergePlan, tensors: Tensors) -> list[tuple[str, str]]:
    """Return pairs of a search variable and one of its tensors."""
    pairs = [(group, name) for group in plan.groups for name in plan.tensors_of(group)]
    if tensors == "all":
        return pairs
    return [(group, name) for group, name in pairs if len(base.tensor(name).shape) > 1]


def _square(source: Source, origin: Source | None = None) -> float:
    """Return the squared norm of a tensor, or of its difference from another."""
    square = 0.0
    for start in range(0, source.numel(), CHUNK):
        stop = min(start + CHUNK, source.numel())
        values = source.read(start, stop)
        if origin is not None:
            values = values - origin.read(start, stop)
        square += float(torch.linalg.vector_norm(values, dtype=torch.double)) ** 2
    return square
