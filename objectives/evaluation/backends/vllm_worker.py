"""What runs inside vLLM's workers: merges streamed into the live model.

vLLM mixes `MergeExtension` into its worker class (`worker_extension_cls`), so that the driver
sends a merge's weights by `collective_rpc` and no tensor ever crosses a process. Every rank of a
tensor-parallel group merges the checkpoint's own tensors and keeps its shard. This module is
imported by vLLM, and by nothing of ours.
"""

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ....errors import EvaluationError
from ...checkpoints import Checkpoint, LoraCheckpoint, is_adapter, is_tied
from ...merging import (
    OPERATORS,
    MergePlan,
    Merger,
    MergeSettings,
    ParentTensors,
    Recipe,
    Resident,
    stream,
)

# 2**20 elements a part: hashing needs the memory of one part.
_PART = 1 << 20
# The rest of a GPU's free memory is left to the engine.
_SHARE_OF_FREE = 0.8


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
        plan = MergePlan(checkpoint.layout, merge, is_tied(checkpoint))
        parents = [_open(Path(path), checkpoint) for path in experts]
        self._mergefront_recipe = Recipe(checkpoint, parents, plan, getattr(torch, dtype))
        # Masks of sparsifying operators do not depend on the weights.
        self._mergefront_merger: Merger = merge.merger(remember=True)

    def mergefront_apply(self, groups: Mapping[str, Sequence[float]]) -> float:
        """Make the live model the candidate; return the seconds it took.

        Raises:
            EvaluationError: If a tensor that every layer has did not arrive as it was sent.
        """
        start = time.perf_counter()
        sent: dict[str, Tensor] = {}
        merged = stream(self._mergefront_recipe, groups, merger=self._mergefront_merger)
        self.reload_weights(weights_iterator=_noting(merged, sent), is_checkpoint_format=True)
        _pack_tied_head(self._mergefront_model())
        _check_arrived(self._mergefront_model(), sent)
        return time.perf_counter() - start

    def mergefront_keep_parents(self, parents: Sequence[Mapping[str, Sequence[float]]]) -> bool:
        """Keep a copy of every parent as the kernels hold it, for `mergefront_overwrite`.

        Args:
            parents: The weights at which the candidate is the base, then each expert.

        Returns:
            Whether it can be done: elementwise operators merge fused and sharded tensors as well
            as the checkpoint's own, but not packed ones.
        """
        model, recipe = self._mergefront_model(), self._mergefront_recipe
        if not _is_elementwise(recipe.plan) or not _holds_plain_weights(model):
            return False
        kept = []
        for groups in parents:
            self.mergefront_apply(groups)
            kept.append(keep(dict(model.named_parameters())))
        names = list(kept[0])
        self._mergefront_live = MergePlan(names, recipe.plan.settings, _is_tied(model))
        self._mergefront_inputs = {
            name: ParentTensors(name, kept[0][name], [parent[name] for parent in kept[1:]])
            for name in names
        }
        return True

    def mergefront_overwrite(self, groups: Mapping[str, Sequence[float]]) -> float:
        """Make the live model the candidate in place; return the seconds it took.

        Parameters keep their addresses, and captured graphs stay valid.
        """
        start = time.perf_counter()
        weights = self._mergefront_live.tensor_weights(groups)
        with torch.no_grad():
            for name, parameter in self._mergefront_model().named_parameters():
                inputs = self._mergefront_inputs[name]
                self._mergefront_merger.merge(inputs, weights[name], parameter.detach())
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def mergefront_reload(self, directory: str) -> None:
        """Let vLLM read a checkpoint by itself: the reference that swaps are compared with."""
        self.reload_weights(weights_path=directory, is_checkpoint_format=True)
        _pack_tied_head(self._mergefront_model())

    def mergefront_checksum(self) -> str:
        """Return a SHA-256 over this rank's parameters as the kernels read them."""
        digest = hashlib.sha256()
        for name, parameter in sorted(self._mergefront_model().named_parameters()):
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}".encode())
            flat = parameter.detach().contiguous().view(-1).view(torch.uint8)
            for part in flat.split(_PART):
                digest.update(part.cpu().numpy().tobytes())
        return digest.hexdigest()

    def _mergefront_model(self) -> nn.Module:
        model: nn.Module = self.model_runner.get_model()
        return model


@dataclass(frozen=True)
class Moved(Resident):
    """A tensor in pinned memory of the host, read in parts onto the model's device.

    Args:
        device: The model's.
    """

    device: torch.device

    def stored(self, start: int, stop: int) -> Tensor:
        """Return a part on the device."""
        return super().stored(start, stop).to(self.device, non_blocking=True)


def keep(parameters: Mapping[str, Tensor]) -> dict[str, Resident]:
    """Copy parameters: on their GPU if they fit what is free there, else in the host's memory."""
    first = next(iter(parameters.values()))
    if first.device.type != "cuda":
        return {name: Resident(p.detach().clone()) for name, p in parameters.items()}
    free, _ = torch.cuda.mem_get_info(first.device)
    size = sum(p.numel() * p.element_size() for p in parameters.values())
    if size < _SHARE_OF_FREE * free:
        return {name: Resident(p.detach().clone()) for name, p in parameters.items()}
    return {n: Moved(p.detach().cpu().pin_memory(), first.device) for n, p in parameters.items()}


def _is_elementwise(plan: MergePlan) -> bool:
    operator = OPERATORS[plan.settings.operator]
    return operator.elementwise and plan.is_dense


def _is_tied(model: nn.Module) -> bool:
    return bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False))


def _holds_plain_weights(model: nn.Module) -> bool:
    """Whether the parameters are what the kernels read: nothing is packed, padded or freed."""
    plain = torch.nn.functional.linear
    if any(getattr(module, "cpu_linear", plain) is not plain for module in model.modules()):
        return False
    return all(
        p.numel() and p.is_contiguous() and p.dtype.is_floating_point for p in model.parameters()
    )


def _open(directory: Path, base: Checkpoint) -> Checkpoint:
    return LoraCheckpoint(directory, base) if is_adapter(directory) else Checkpoint(directory)


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
    parameters = dict(model.named_parameters())
    for name, tensor in sent.items():
        live = parameters.get(name)
        if live is None or live.shape != tensor.shape:
            continue
        if not torch.equal(live.detach().cpu(), tensor.to(live.dtype).cpu()):
            raise EvaluationError(
                f"A swap must leave the engine with the merged weights, but {name!r} differs."
            )


def _pack_tied_head(model: nn.Module) -> None:
    """Pack a tied output matrix again: on CPUs vLLM keeps a packed copy of the old embeddings.

    Without it every answer silently comes from the new layers and the old head.
    """
    head = getattr(model, "lm_head", None)
    if head is None or not _is_tied(model) or head.weight.device.type != "cpu":
        return
    head.weight = model.model.embed_tokens.weight  # type: ignore[union-attr]
    head.quant_method.process_weights_after_loading(head)
