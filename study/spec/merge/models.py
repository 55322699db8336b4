"""The spec's section `models`: the parents."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictInt, model_validator

from ..base import Section

_Name = Annotated[str, Field(min_length=1)]


class ChooseSection(Section):
    """How many of the experts a candidate merges.

    Args:
        min: The fewest.
        max: The most. Defaults to None: all of them.
    """

    min: int = Field(default=1, ge=1)
    max: int | None = Field(default=None, ge=1)


class ModelsSection(Section):
    """The parents.

    Args:
        base: The model at weight 0: a directory, relative to the spec's folder, or a hub id,
            `ORG/NAME[@REVISION][:SUBFOLDER]`.
        experts: The models at weight 1, or LoRA adapters of the base: directories or hub ids.
        dtype: Number format of the merged models; parents are converted when they are loaded.
        stop_tokens: Whose tokens end an answer: `all` parents', those of `base`, `expert`,
            `expert@2` or another model's directory, or a list of tokens or their numbers.
        chat_template: Whose renders the prompts: that of `base`, `expert`, `expert@2`, of a
            `.jinja` file, or of another model's directory.
        choose: How many experts a candidate merges; which, is searched. Defaults to None: all.
    """

    base: str
    experts: list[str] = Field(min_length=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    stop_tokens: _Name | Annotated[list[StrictInt | _Name], Field(min_length=1)] = "all"
    chat_template: _Name = "base"
    choose: ChooseSection | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.sizes.start, self.sizes.stop - 1
        if not low <= high <= len(self.experts):
            raise ValueError(
                f"`min <= max` and at most {len(self.experts)} experts must hold in `choose`, but "
                f"got min {low} and max {high}"
            )
        return self

    @property
    def sizes(self) -> range:
        """How many experts a candidate may merge."""
        n = len(self.experts)
        if self.choose is None:
            return range(n, n + 1)
        return range(self.choose.min, (self.choose.max or n) + 1)
