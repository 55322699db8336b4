"""The spec's key `merge.precision`: in how many bits the linear layers are served."""

from typing import Self

from pydantic import Field, model_validator

from ....objectives.merging import Precision
from ....objectives.merging.precision import PrecisionName
from ..base import Section


class PrecisionSection(Section):
    """Precisions to choose from, each for a group of neighbouring layers.

    Args:
        choose: Two or more of bfloat16, fp8, int8 and int4.
        groups: Number of groups of neighbouring layers, each with a precision of its own.
    """

    choose: list[PrecisionName]
    groups: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.choose) < 2:
            raise ValueError(
                f"a choice needs two precisions at least, but got {self.choose}; write "
                f"`merge.precision: {self.choose[0] if self.choose else 'int4'}` for one"
            )
        if len(set(self.choose)) < len(self.choose):
            raise ValueError(f"precisions to choose from must differ, but got {self.choose}")
        return self


def precision_of(given: PrecisionName | PrecisionSection | None) -> Precision | None:
    """Return a key's value as the merge plan takes it."""
    if isinstance(given, PrecisionSection):
        return Precision(tuple(given.choose), given.groups)
    return None if given is None else Precision((given,))


def check_dtype(precision: Precision | None, dtype: str) -> None:
    """Refuse bfloat16 among the precisions of a model that is merged in another format.

    Raises:
        ValueError: If it is.
    """
    if precision is not None and "bfloat16" in precision.choices and dtype != "bfloat16":
        raise ValueError(
            "`merge.precision` bfloat16 is a layer as it is merged, but models.dtype is "
            f"{dtype}; write `dtype: bfloat16`, or leave bfloat16 out"
        )
