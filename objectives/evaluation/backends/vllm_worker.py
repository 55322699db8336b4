"""What runs inside vLLM's workers: merges streamed into the live model.

vLLM mixes `MergeExtension` into its worker class (`worker_extension_cls`), so that the driver
sends a merge's weights by `collective_rpc` and no tensor ever crosses a process. Through the
loader every rank of a tensor-parallel group merges the checkpoint's own tensors and keeps its
shard; in place it merges its shard alone. This module is imported by vLLM, and by nothing of ours.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import EvaluationError, LayoutError
from ...checkpoints import Checkpoint, open_expert
from ...merging import (
    OPERATORS,
    MergePlan,
    Merger,
    MergeSettings,
    ParentTensors,
    Recipe,
    chunk_for,
    engine_plan,
    plan_of,
    stream,
)
from ...merging.merger import check_finite
from .vllm_swap.canary import COMPUTED, Hashes
from .vllm_swap.device_hash import hash_tensors
from .vllm_swap.layers import forget_packing, pack_again, packed_outputs, plain_reason
from .vllm_swap.listener import Listener
from .vllm_swap.parents import DeviceRecipe, fits_device, keep

# Of attention layers: not weights, and most of the memory.
_KV_CACHE = "kv_cache"


class MergeExtension:
    """Methods for vLLM's worker; a prefix keeps their names apart from its own."""

    # vLLM's worker, which this class is mixed into.
    reload_weights: Any
    model_runner: Any

    def mergefront_load(
        self, base: str, experts: Sequence[str], dtype: str, settings: Mapping[str, Any]
    ) -> None:
        """Open the parents; their files are mapped, and shared by all ranks of a machine."""
        checkpoint = Checkpoint(Path(base))
        merge = MergeSettings(**{**settings, "blocks": tuple(settings["blocks"])})
        plan = plan_of(checkpoint, merge)
        parents = [open_expert(Path(path), checkpoint) for path in experts]
        recipe = Recipe(checkpoint, parents, plan, getattr(torch, dtype))
        device = self._mergefront_device()
        if device.type != "cpu" and not _elementwise_reason(plan):
            recipe = DeviceRecipe(**vars(recipe), device=device)
        self._mergefront_recipe = recipe
        # Masks of sparsifying operators do not depend on the weights.
        # Where the operator is searched, every candidate has its own.
        chunk = self._mergefront_chunk()
        self._mergefront_merger = None if merge.arms else merge.merger(remember=True, chunk=chunk)
        # What a parent is depends on no rule of the search: every tensor is the parent's.
        whole = MergeSettings(granularity="uniform", n_experts=len(parents), towers="merge")
        whole_plan = plan_of(checkpoint, whole)
        self._mergefront_whole = replace(self._mergefront_recipe, plan=whole_plan)
        self._mergefront_kept: dict[int, Mapping[str, Any]] = {}

    def mergefront_apply(self, groups: Mapping[str, Sequence[float]]) -> float:
        """Make the live model the candidate; return the seconds it took.

        Raises:
            EvaluationError: If a tensor that every layer has did not arrive as it was sent.
        """
        start = time.perf_counter()
        self._mergefront_stream(self._mergefront_recipe, groups, self._mergefront_merger)
        return time.perf_counter() - start

    def mergefront_become(self, parent: int, in_place: bool) -> None:
        """Make the live model a parent, through one of the ways of swapping.

        Args:
            parent: 0 is the base, 1 the first expert.
            in_place: Whether to overwrite the kernels' tensors.
        """
        plan = self._mergefront_whole.plan
        groups = plan.group_weights(plan.expert(parent) if parent else plan.uniform(0.0))
        merger = plan.settings.merger(chunk=self._mergefront_chunk())
        if in_place:
            names = list(self._mergefront_inputs)
            live = engine_plan(names, plan, _is_tied(self._mergefront_model()))
            self._mergefront_write(live, groups, merger)
        else:
            self._mergefront_stream(self._mergefront_whole, groups, merger)

    def mergefront_keep(self, parent: int) -> str:
        """Keep a copy of the live model, as the kernels hold it, for `mergefront_overwrite`.

        Args:
            parent: Which parent the live model is: 0 the base, 1 the first expert.

        Returns:
            Why it cannot be done; nothing if it was.
        """
        model, recipe = self._mergefront_model(), self._mergefront_recipe
        if reason := _elementwise_reason(recipe.plan) or plain_reason(model):
            return reason
        tensors = dict(model.named_parameters()) | _buffers(model)
        if not self._mergefront_kept:
            n_parents = 1 + len(recipe.experts)
            self._mergefront_on_device = fits_device(tensors, n_parents)
        self._mergefront_kept[parent] = keep(tensors, self._mergefront_on_device)
        return ""

    def mergefront_prepare(self) -> str:
        """Arrange the parents that were kept; return why it cannot be done, or nothing."""
        kept = [self._mergefront_kept[index] for index in sorted(self._mergefront_kept)]
        parameters = dict(self._mergefront_model().named_parameters())
        changing = [name for name in kept[0] if name in parameters or _changes(name, kept)]
        if odd := [name for name in changing if not kept[0][name].tensor.is_floating_point()]:
            return f"{odd[0]} differs between the parents and is not a floating tensor"
        plan = self._mergefront_recipe.plan
        try:
            tied = _is_tied(self._mergefront_model())
            self._mergefront_live = engine_plan(changing, plan, tied)
        except LayoutError as error:
            return str(error)
        self._mergefront_inputs = {
            name: ParentTensors(name, kept[0][name], [parent[name] for parent in kept[1:]])
            for name in changing
        }
        return ""

    def mergefront_overwrite(self, groups: Mapping[str, Sequence[float]]) -> tuple[float, str]:
        """Make the live model the candidate in place.

        Tensors keep their addresses, and captured graphs stay valid.

        Returns:
            The seconds it took, and why the candidate is no model; nothing if it is one. Raised,
            an error would lose its kind between processes.
        """
        start = time.perf_counter()
        assert self._mergefront_merger is not None, "no arms: see _elementwise_reason"
        try:
            self._mergefront_write(self._mergefront_live, groups, self._mergefront_merger)
        except LayoutError as error:
            return time.perf_counter() - start, str(error)
        if self._mergefront_device().type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start, ""

    def mergefront_listen(self) -> None:
        """Hear the model's distributions from now on."""
        self._mergefront_listener = Listener(self._mergefront_model())

    def mergefront_listener(self, method: str, *given: Any) -> Any:
        """Call a method of the listener."""
        return getattr(self._mergefront_listener, method)(*given)

    def mergefront_stop_listening(self) -> None:
        """Leave the model, and forget what was heard."""
        self._mergefront_listener.close()
        del self._mergefront_listener

    def mergefront_hashes(self) -> Hashes:
        """Return a hash of every tensor of this rank's modules, as the kernels read them.

        Parameters, buffers, and tensors that are attributes (derived from weights, perhaps).
        """
        return hash_tensors(_all_tensors(self._mergefront_model()))

    def _mergefront_stream(
        self, recipe: Recipe, groups: Mapping[str, Sequence[float]], merger: Merger | None
    ) -> None:
        model = self._mergefront_model()
        sent: dict[str, Tensor] = {}
        merged = stream(recipe, groups, merger=merger)
        forget_packing(model)
        self.reload_weights(weights_iterator=_noting(merged, sent), is_checkpoint_format=True)
        pack_again(model, _is_tied(model))
        _check_arrived(model, sent)

    def _mergefront_write(
        self, plan: MergePlan, groups: Mapping[str, Sequence[float]], merger: Merger
    ) -> None:
        weights, model = plan.tensor_weights(groups), self._mergefront_model()
        live = dict(model.named_parameters()) | _buffers(model)
        with torch.no_grad():
            for name, inputs in self._mergefront_inputs.items():
                merger.merge(inputs, weights[name], live[name].detach())
                check_finite(name, live[name])

    def _mergefront_model(self) -> nn.Module:
        model: nn.Module = self.model_runner.get_model()
        return model

    def _mergefront_device(self) -> torch.device:
        return next(self._mergefront_model().parameters()).device

    def _mergefront_chunk(self) -> int:
        return chunk_for(self._mergefront_device())


def _elementwise_reason(plan: MergePlan) -> str:
    """Say why kernels' tensors cannot be merged instead of the checkpoint's; "" if they can."""
    if plan.arms:
        return "operators or experts are searched"
    if plan.settings.precision is not None:
        return "linear layers are rounded, as the checkpoint holds them"
    operator = OPERATORS[plan.settings.operator]
    if not operator.elementwise:
        return f"operator {operator.name!r} looks at whole tensors"
    if plan.settings.granularity == "heads":
        return "heads are pieces of tensors that the kernels fuse"
    return "" if plan.is_dense else "task vectors are sparsified"


def _is_tied(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False))


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_buffers())


def _changes(name: str, kept: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a tensor is not the same in all parents."""
    first = kept[0][name].tensor
    return not all(torch.equal(first, parent[name].tensor) for parent in kept[1:])


def _all_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor that a module holds, a name for each."""
    yield from model.named_parameters()
    yield from packed_outputs(model)
    for prefix, module in model.named_modules():
        for key, tensor in module.named_buffers(recurse=False):
            computed = COMPUTED if key in module._non_persistent_buffers_set else ""
            yield f"{computed}{prefix}.{key}", tensor
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and key != _KV_CACHE:
                yield f"{prefix}.{key}", value


def _noting(
    tensors: Iterator[tuple[str, Tensor]], sent: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """Pass tensors on; keep the vectors, which no engine fuses, shards or packs (norms)."""
    for name, tensor in tensors:
        if tensor.dim() == 1 and name.endswith("norm.weight"):
            sent[name] = tensor.clone()
        yield name, tensor


def _check_arrived(model: nn.Module, sent: Mapping[str, Tensor]) -> None:
    """Compare what every layer must have received, bit for bit.

    Raises:
        EvaluationError: If a tensor differs; the engine is not to be used any more.
    """
    live = {name: p.detach() for name, p in model.named_parameters() if name in sent}
    equal = {
        name: (tensor == sent[name].to(tensor.device, tensor.dtype)).all()
        for name, tensor in live.items()
        if tensor.shape == sent[name].shape
    }
    if equal and not bool(torch.stack(list(equal.values())).all()):  # one wait for all of them
        name = next(name for name, same in equal.items() if not same)
        raise EvaluationError(
            f"A swap must leave the engine with the merged weights, but {name!r} differs."
        )
