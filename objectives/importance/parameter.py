"""Parameter importance: how far fine-tuning moved the tensors that a variable controls."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from ..merging import Checkpoint, MergePlan
from ..merging.engine import check_same_tensor


def relative_norms(
    base: Checkpoint, experts: Sequence[Checkpoint], plan: MergePlan
) -> dict[str, float]:
    """Return `||expert - base|| / ||base||` over all tensors of each search variable.

    The tensors of a variable are pooled into one vector (Frobenius norms). AP-BMM averages the
    relative norms of single tensors instead, where the few numbers of a normalisation weigh as
    much as a matrix. Streamed: one tensor of each model in memory.

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
    for file in base.files:
        for name, tensor in base.tensors(file):
            if (group := group_of.get(name)) is not None and tensor.is_floating_point():
                total[group] += _square(tensor)
                for k, expert in enumerate(experts, start=1):
                    counterpart = expert.tensor(name)
                    check_same_tensor(name, tensor, counterpart)
                    moved[_parameter(group, k, len(experts))] += _square(counterpart, tensor)
    return {
        name: math.sqrt(moved[name] / total[name.split("@")[0]]) if moved[name] else 0.0
        for name in plan.parameter_names
    }


def _square(tensor: Tensor, origin: Tensor | None = None) -> float:
    values = tensor.float() if origin is None else tensor.float() - origin.float()
    return float(torch.linalg.vector_norm(values, dtype=torch.double)) ** 2


def _parameter(group: str, expert: int, n_experts: int) -> str:
    return group if n_experts == 1 else f"{group}@{expert}"
