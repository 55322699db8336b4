"""Number formats in which the weights of linear layers are served, and which layers have which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ....errors import LayoutError

PrecisionName = Literal["bfloat16", "fp8", "int8", "int4"]

# Where a candidate's weights say which precision each group of layers has, by places of choices.
PRECISION = "precision"


@dataclass(frozen=True)
class Format:
    """A number format of few bits, as compressed-tensors defines it.

    Args:
        bits: Of a number.
        kind: Integers in two's complement, or floating numbers (e4m3).
        low: The least number.
        high: The greatest.
        groups: How many numbers of a row may share a scale, the most first. Defaults to (): all
            of them share one.
    """

    bits: int
    kind: Literal["int", "float"]
    low: float
    high: float
    groups: tuple[int, ...] = ()

    def group_size(self, width: int) -> int:
        """Return how many numbers of a row share a scale: all of them, where no group divides it.

        Args:
            width: Numbers in a row.
        """
        return next((size for size in self.groups if width % size == 0), width)

    @property
    def reach(self) -> float:
        """Half of the range: what the largest weight of a group is divided by for its scale."""
        return (self.high - self.low) / 2


# What compressed-tensors' kernels know. The first is usual, the others are for models whose rows
# it does not divide: one scale a row takes nearly everything from four bits.
_GROUPS = (128, 64, 32)

# The one that is not here, bfloat16, is what the merge is in.
FORMATS: Mapping[str, Format] = {
    "fp8": Format(8, "float", -448.0, 448.0),
    "int8": Format(8, "int", -128.0, 127.0, _GROUPS),
    "int4": Format(4, "int", -8.0, 7.0, _GROUPS),
}


def _bits(name: str) -> int:
    return FORMATS[name].bits if name in FORMATS else 16


@dataclass(frozen=True)
class Precision:
    """The precision of the linear layers: one, or one that is searched for each group of layers.

    Args:
        choices: Names of precisions; with one alone nothing is searched.
        groups: Of neighbouring layers, as even as can be.
    """

    choices: tuple[str, ...]
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", tuple(self.choices))  # a list from another process

    @property
    def names(self) -> list[str]:
        """Names of the parameters, one a group; none if it is fixed."""
        return [f"{PRECISION}_{k}" for k in range(self.groups)] if len(self.choices) > 1 else []

    @property
    def widest(self) -> dict[str, str]:
        """The parameters with the choice of most bits, which changes weights least."""
        return dict.fromkeys(self.names, max(self.choices, key=_bits))

    def places(self, params: Mapping[str, Any]) -> tuple[float, ...]:
        """Return the place of each group's choice among the choices.

        Raises:
            LayoutError: If a parameter is none of them.
        """
        for name in self.names:
            if params[name] not in self.choices:
                raise LayoutError(
                    f"{name!r} must be one of {', '.join(self.choices)}, but got {params[name]!r}."
                )
        return tuple(float(self.choices.index(params[name])) for name in self.names)

    def params(self, places: Sequence[float]) -> dict[str, str]:
        """Return the parameters of groups whose choices are given by their places."""
        return {n: self.choices[int(p)] for n, p in zip(self.names, places, strict=True)}

    def of_layer(self, layer: int, n_layers: int, places: Sequence[float]) -> str:
        """Return a layer's precision.

        Args:
            layer: Its index.
            n_layers: Of the model.
            places: From `places`.
        """
        if not self.names:
            return self.choices[0]
        return self.choices[int(places[layer * self.groups // n_layers])]


def is_precision(name: str) -> bool:
    """Whether a parameter of a study is the precision of a group of layers."""
    return name.startswith(f"{PRECISION}_")


def precisions(params: Mapping[str, Any]) -> str:
    """Return the precisions that a candidate names: `int4`, or `bfloat16/int4/int4`; "" for none.

    One alone says that all groups of layers have it.
    """
    found = [str(value) for name, value in params.items() if is_precision(name)]
    return found[0] if len({*found}) == 1 else "/".join(found)
