"""All that determines a merged checkpoint's bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

from ..checkpoints.lora_tensor import LoraTensor, with_cast
from ..checkpoints.reader import Checkpoint
from ..checkpoints.tensor_files import FileTensor
from ..checkpoints.tensors import embeddings_name, tensor_table
from .plan import MergePlan
from .precision import PRECISION, served_bytes


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

    def model_bytes(self, groups: Mapping[str, Sequence[float]]) -> int:
        """Return what a candidate's weights take as it is served, in bytes.

        Every tensor of the running model counts once, a copy of the embeddings not at all; those
        of few bits count with their scales.

        Args:
            groups: The weights of every search variable; only precisions matter.
        """
        table = tensor_table(self.base)
        copies = table.heads if table.tied and embeddings_name(table.merged) is not None else ()
        return sum(
            served_bytes(
                self.base.tensor(name).shape,
                self.dtype_of(name),
                self.plan.format_of(name, groups),
            )
            for name in table.merged
            if name not in copies
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Precision -> bytes of a model all of whose linear layers have it; "" for none."""
        precision = self.plan.settings.precision
        if precision is None:
            return {"": self.model_bytes({})}
        return {
            name: self.model_bytes({PRECISION: [place] * len(precision.names)})
            for place, name in enumerate(precision.choices)
        }
