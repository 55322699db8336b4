"""What an operator declares, checked before any tensor is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ....errors import SpecError

# (base, experts, weights) -> merged, all float32 of one shape; one weight an expert.
Combine = Callable[[Tensor, Sequence[Tensor], Sequence[float]], Tensor]


@dataclass(frozen=True)
class Operator:
    """One way to combine a base tensor with its counterparts in the experts.

    Args:
        name: The name used in specs.
        combine: The formula, for one tensor at a time.
        elementwise: Whether an element of the result depends on that element of the inputs
            alone, so that a tensor may be merged in chunks, packed or sharded.
        max_experts: The most experts that it is defined for; None for any number.
    """

    name: str
    combine: Combine
    elementwise: bool
    max_experts: int | None = None


def check_weights(operator: Operator, weights: Sequence[float]) -> None:
    """Refuse weights that the operator is not defined for.

    Raises:
        SpecError: If there are too many experts, or a weight is not finite.
    """
    if operator.max_experts is not None and len(weights) > operator.max_experts:
        raise SpecError(
            f"Operator {operator.name!r} merges at most {operator.max_experts} expert(s), but got "
            f"{len(weights)}. Choose another operator or fewer experts."
        )
    if not all(abs(weight) < float("inf") for weight in weights):
        raise SpecError(f"Weights must be finite, but got {list(weights)}.")
