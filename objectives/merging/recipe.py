"""All that determines a merged checkpoint's bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from ..checkpoints.lora import LoraTensor, with_cast
from ..checkpoints.reader import Checkpoint
from ..checkpoints.tensor_files import FileTensor
from ..checkpoints.tensors import tensor_table
from .plan import MergePlan


@dataclass(frozen=True)
class Recipe:
    """All that determines a merged checkpoint's bytes, besides the candidate's weights.

    Args:
        base: Weight 0.
        experts: Weight 1 each.
        plan: Built from the base checkpoint's tensor names.
        dtype: Of the study. Sources are cast before the merge as when they are loaded for a
            search: to it, or to the precision in which their model class keeps them.
    """

    base: Checkpoint
    experts: Sequence[Checkpoint]
    plan: MergePlan
    dtype: torch.dtype

    def at(
        self, groups: Mapping[str, Sequence[float]]
    ) -> tuple[Self, Mapping[str, Sequence[float]]]:
        """Return recipe and weights of a candidate as a study of its arm alone has them."""
        if not self.plan.arms:
            return self, groups
        found = self.plan.at(groups)
        experts = [self.experts[k - 1] for k in found.experts]
        return replace(self, experts=experts, plan=found.plan), found.groups

    def sources(self, name: str) -> list[FileTensor | LoraTensor]:
        """Return one tensor in all models, base first, cast as it is loaded for a search.

        A tensor that no running model has is the base's.
        """
        table, dtype = tensor_table(self.base), self.dtype_of(name)
        models = (self.base, *self.experts) if name in self.plan.parts else (self.base,)
        found = [table.source(model, name) for model in models]
        return [with_cast(source, dtype) for source in found if source is not None]

    def dtype_of(self, name: str) -> torch.dtype:
        """Return the precision in which a tensor is merged and written."""
        return tensor_table(self.base).dtype_of(name, self.dtype)
