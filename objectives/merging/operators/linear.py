"""Operators that need nothing but each element's own values."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ._base import Operator, Options, Parameter


def _linear(
    base: Tensor, experts: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Return `base + sum_k w_k (expert_k - base)`.

    `torch.lerp` computes `expert - (1 - w)(expert - base)` for `w >= 0.5`, so that the error
    shrinks toward either end.
    """
    active = [(e, w) for e, w in zip(experts, weights, strict=True) if w != 0.0]
    if len(active) == 1:
        return torch.lerp(base, *active[0])
    merged = base.clone()
    for expert, weight in active:
        merged.add_(expert - base, alpha=weight)
    return merged


def _nearswap(
    base: Tensor, experts: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Return the expert where it is near the base: `|expert - base| <= w`, less of it beyond.

    With `a = min(1, w / max(|expert - base|, 1e-6))` the result is `a expert + (1 - a) base`, so
    no element moves further than `w`: useful weights are of the size of the differences.
    """
    (expert,), (weight,) = experts, weights
    share = (weight / (expert - base).abs().clamp_min(1e-6)).clamp(0.0, 1.0)
    return share * expert + (1 - share) * base


def _passthrough(
    base: Tensor, experts: Sequence[Tensor], weights: Sequence[float], options: Options
) -> Tensor:
    """Return one model's tensor whole: from weight 0.5 on the expert's, times `scale`."""
    (expert,), (weight,) = experts, weights
    return options["scale"] * expert if weight >= 0.5 else base


# `torch.lerp` computes in float32 whatever it is given, and rounds once.
LINEAR = Operator(
    "linear", _linear, elementwise=True, exact_ends=True, dense="sum", between=torch.lerp
)
NEARSWAP = Operator("nearswap", _nearswap, elementwise=True, max_experts=1)
PASSTHROUGH = Operator(
    "passthrough",
    _passthrough,
    elementwise=True,
    max_experts=1,
    parameters=(Parameter("scale", 1.0, -10.0, 10.0),),
)
