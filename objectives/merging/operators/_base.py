"""What an operator declares, checked before any tensor is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ....errors import SpecError

Options = Mapping[str, float]

# (base, inputs, weights, options) -> merged, all float32 of one shape, one weight per expert. The
# inputs are the experts' tensors, or their task vectors where `Operator.on_deltas` says so.
Combine = Callable[[Tensor, Sequence[Tensor], Sequence[float], Options], Tensor]

# (absolute task vector in its own shape, density, options, generator) -> mask of what is kept.
Sparsify = Callable[[Tensor, float, Options, torch.Generator], Tensor]


@dataclass(frozen=True)
class Parameter:
    """A number that an operator takes beside weight and density; switches are 0 or 1.

    Args:
        name: The key under `merge.parameters`.
        default: Used where the spec says nothing.
        low: Smallest value allowed.
        high: Largest value allowed.
    """

    name: str
    default: float
    low: float
    high: float


@dataclass(frozen=True)
class Operator:
    """One way to combine a base tensor with its counterparts in the experts.

    Args:
        name: The name used in specs.
        combine: The formula, for one tensor, or a part of it, at a time.
        elementwise: Whether an element of the result depends on that element of the inputs
            alone, given the masks, so that a tensor may be merged in chunks.
        on_deltas: Whether `combine` gets task vectors (`expert - base`) instead of experts.
        sparsify: Chooses the elements of a task vector that are kept; never sees a weight.
        min_experts: The fewest experts that it is defined for.
        max_experts: The most experts that it is defined for; None for any number.
        exact_ends: Whether one expert with weight 1, all others at 0, is that expert exactly.
        parameters: What may stand under `merge.parameters`.
        dense: What it does with task vectors that are kept whole: operators of one name do the
            same. None for one that shares its formula with no other.
        between: The same formula for base and one expert, on tensors of the stored precision, if
            that gives the same bits as float32 arithmetic rounded once, and sooner. Takes memory
            for the result as `out`, or None.
    """

    name: str
    combine: Combine
    elementwise: bool = False
    on_deltas: bool = False
    sparsify: Sparsify | None = None
    min_experts: int = 1
    max_experts: int | None = None
    exact_ends: bool = False
    parameters: tuple[Parameter, ...] = ()
    dense: Literal["sum", "election"] | None = None
    between: Callable[..., Tensor] | None = None

    def keeps_expert(self, options: Options, density: float) -> bool:
        """Whether one expert at weight 1, the others at 0, is that expert exactly.

        Args:
            options: All parameters.
            density: Share of its task vector that is kept.
        """
        plain = density >= 1 and options.get("lambda") == 1.0
        return self.exact_ends or (self.on_deltas and plain)

    def options(self, given: Mapping[str, float]) -> dict[str, float]:
        """Return all parameters, given or default.

        Raises:
            SpecError: If one is unknown or out of its range.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name, value in given.items():
            if name not in known:
                raise SpecError(
                    f"Operator {self.name!r} takes the parameters {sorted(known)}, but got "
                    f"{name!r}. Remove it from the operator's `parameters`."
                )
            low, high = known[name].low, known[name].high
            if not low <= value <= high:
                raise SpecError(
                    f"`{low:g} <= {name} <= {high:g}` must hold for operator {self.name!r}, but "
                    f"got {name}={value:g}."
                )
        return {name: float(given.get(name, p.default)) for name, p in known.items()}


def check_operator(
    operator: Operator, n_experts: int, given: Mapping[str, float], densities: Sequence[float]
) -> None:
    """Refuse what the operator is not defined for.

    Raises:
        SpecError: If the number of experts, a parameter or a density does not fit.
    """
    most = operator.max_experts
    if n_experts < operator.min_experts or (most is not None and n_experts > most):
        wanted = f"{operator.min_experts} or more" if most is None else f"at most {most}"
        in_turn = ""
        if most == 1:
            in_turn = ", merge them in turn (`merge.order: given` or `search`), leave some out "
            in_turn += "(`models.choose: {max: 1}`)"
        raise SpecError(
            f"Operator {operator.name!r} merges {wanted} expert(s), but got {n_experts}. Choose "
            f"another operator{in_turn} or change `models.experts`."
        )
    options = operator.options(given)
    sparse = [density for density in densities if density != 1.0]
    if sparse and operator.sparsify is None:
        raise SpecError(
            f"density applies to sparsifying operators, but operator {operator.name!r} has none; "
            f"remove density={sparse[0]:g}."
        )
    if options.get("normalize") and n_experts == 1:
        raise SpecError(
            "With one expert and normalize=1 the weight cancels: every candidate would be the "
            "same. Remove normalize from `merge.parameters`."
        )
    if sparse and (epsilon := options.get("epsilon")):
        for density in sparse:
            if not (density - epsilon > 0 and density + epsilon < 1):
                raise SpecError(
                    "`0 < density - epsilon` and `density + epsilon < 1` must hold, but got "
                    f"density={density:g} and epsilon={epsilon:g}."
                )
