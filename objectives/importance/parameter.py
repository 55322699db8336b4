"""Parameter importance: how far fine-tuning moved the tensors that a variable controls."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch

from ..merging import Checkpoint, MergePlan
from ..merging.engine import CHUNK, Source


def relative_norms(
    base: Checkpoint, experts: Sequence[Checkpoint], plan: MergePlan
) -> dict[str, float]:
    """Return `||expert - base|| / ||base||` over all tensors of each search variable.

    The tensors of a variable are pooled into one vector (Frobenius norms). AP-BMM averages the
    relative norms of single tensors instead, where the few numbers of a normalisation weigh as
    much as a matrix. Streamed in parts of a tensor.

    Args:
        base: Weight 0.
        experts: Weight 1 each.
        plan: The search variables.

    Returns:
        Parameter name -> relative task-vector norm, 0 where nothing was moved.
    """
    moved: dict[str, float] = defaultdict(float)
    total: dict[str, float] = defaultdict(float)
    group_of = {name: group for group in plan.groups for name in plan.tensors_of(group)}
    for name, group in group_of.items():
        origin = base.tensor(name)
        total[group] += _square(origin)
        for k, expert in enumerate(experts, start=1):
            moved[_parameter(group, k, len(experts))] += _square(expert.tensor(name), origin)
    return {
        name: math.sqrt(moved[name] / total[name.split("@")[0]]) if moved[name] else 0.0
        for name in plan.parameter_names
    }


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


def _parameter(group: str, expert: int, n_experts: int) -> str:
    return group if n_experts == 1 else f"{group}@{expert}"
