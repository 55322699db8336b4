"""Linear interpolation, and its generalisation to several experts (task arithmetic)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._base import Operator


def linear(base: Tensor, experts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return `base + sum_k w_k (expert_k - base)`, exact where one input has all the weight.

    Neither `base + 1.0 * (expert - base)` nor `torch.lerp` at weight 1 gives the expert bit for
    bit (the latter may flip the sign of a zero), so an expert with weight 1 alone is copied.
    """
    active = [(e, w) for e, w in zip(experts, weights, strict=True) if w != 0.0]
    if not active:
        return base.clone()
    if len(active) == 1:
        expert, weight = active[0]
        return expert.clone() if weight == 1.0 else torch.lerp(base, expert, weight)
    merged = base.clone()
    for expert, weight in active:
        merged.add_(expert - base, alpha=weight)
    return merged


LINEAR = Operator(name="linear", combine=linear, elementwise=True)
