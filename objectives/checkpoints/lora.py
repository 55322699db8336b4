"""LoRA experts: adapters in PEFT's format, merged into the base as they are read."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import SpecError
from .adapters.promises import PREFIX, check_promises
from .adapters.settings import ADAPTER_WEIGHTS, CONFIG, read_settings, read_tensors, scaling_of
from .lora_tensor import LoraTensor
from .reader import Checkpoint, check_one_model
from .tensor_files import FileTensor
from .tensors import (
    PaddedCheckpoint,
    embeddings_name,
    fitted,
    is_head,
    is_tied,
    same,
    tensor_table,
)
from .text_files import check_links


class LoraCheckpoint(Checkpoint):
    """An adapter on a base, read as if it were a checkpoint of its own.

    Args:
        directory: Holds `adapter_config.json` and `adapter_model.safetensors`.
        base: What it is added to.

    Raises:
        SpecError: If a file is missing, the adapter uses an option that is not understood, it
            changes a tensor that the base does not have, or lacks one that its settings name.
    """

    def __init__(self, directory: Path, base: Checkpoint) -> None:
        super().__init__(base.directory)
        check_links(directory)
        self.directory, self._base, self.layout = directory, base, base.layout
        self.table = tensor_table(base)
        settings = read_settings(directory)
        self._changes = _changes(directory, base, scaling_of(settings, directory))
        check_promises(directory, settings, base, self._changes)
        _check_effect(directory, self._changes)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The base's: an adapter has none."""
        return self._base.config

    @property
    def changed(self) -> list[str]:
        """Names of the tensors that the adapter changes."""
        return sorted(self._changes)

    def tensor(self, name: str) -> FileTensor | LoraTensor:  # type: ignore[override]
        """Return one tensor, with the adapter added where it has one."""
        return self._changes.get(name) or self._base.tensor(name)

    @property
    def paths(self) -> list[Path]:
        """Every file that decides the weights."""
        own = [self.directory / name for name in (CONFIG, ADAPTER_WEIGHTS)]
        return [*self._base.paths, *(path.resolve() for path in own)]

    def weights_hash(self) -> str:
        """Return a hash over the base and the adapter."""
        digest = Checkpoint.hash_files([self.directory / CONFIG, self.directory / ADAPTER_WEIGHTS])
        return Checkpoint.hash_lines([self._base.weights_hash(), digest])


def open_expert(directory: Path, base: Checkpoint) -> Checkpoint:
    """Return an expert's checkpoint; an adapter's is on the base.

    Its embeddings have the base's number of rows; `check_mergeable` says whether the others are
    padding.
    """
    if is_adapter(directory):
        return LoraCheckpoint(directory, base)
    return fitted(Checkpoint(directory), base)


def reads_base(directory: Path, base: Path) -> bool:
    """Whether an expert is another model without its base: an adapter, or of other padding."""
    return isinstance(open_expert(directory, Checkpoint(base)), LoraCheckpoint | PaddedCheckpoint)


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter instead of a model.

    Raises:
        SpecError: If it holds both.
    """
    check_one_model(directory)
    return (directory / CONFIG).is_file()


def _changes(
    directory: Path, base: Checkpoint, scaling: tuple[int, float]
) -> dict[str, FileTensor | LoraTensor]:
    """Return what becomes of the base's tensors; every tensor of the adapter has its part in it.

    Raises:
        SpecError: At the first tensor that has none.
    """
    rest = read_tensors(directory)
    found: dict[str, FileTensor | LoraTensor] = {}
    adapter = _Adapter(directory, base, *scaling)
    for name in list(rest):
        for first, second in _PAIRS:
            if name.endswith(first):
                module = name.removesuffix(first)
                if (pair := rest.pop(module + second, None)) is None:
                    raise SpecError(
                        f"An adapter's matrices come in pairs, but {module} has no "
                        f"{second.strip('.').split('.')[0]} in {directory}."
                    )
                target = adapter.target(module + ".weight")
                matrices = rest.pop(name).load().float(), pair.load().float()
                found[target] = adapter.product(target, matrices, "embedding" in first)
    for name in list(rest):
        if name.endswith(".lora_B.bias"):
            target = adapter.target(name.removesuffix(".lora_B.bias") + ".bias")
            column = rest.pop(name).load().float().view(-1, 1)
            found[target] = adapter.sum(target, torch.ones(1, 1), column)
    tied = any(is_head(name) for name in rest) or embeddings_name(found) or embeddings_name(rest)
    if tied and is_tied(base):
        heads = [rest.pop(name) for name in list(rest) if is_head(name)]
    else:
        heads, tied = [], None
    for name, tensor in rest.items():
        target = adapter.whole(name, tensor)
        if target in found:
            raise adapter.refused(name, "it is given whole, and as a product too")
        found[target] = tensor
    return _tied(found, heads, adapter) if tied else found


def _check_effect(directory: Path, changes: dict[str, FileTensor | LoraTensor]) -> None:
    """Refuse an adapter as it is before training; what was trained whole is not read for that."""
    products = [each for each in changes.values() if isinstance(each, LoraTensor)]
    if len(products) == len(changes) and not any(p.a.any() and p.b.any() for p in products):
        raise SpecError(
            f"An adapter must change the base, but all products of matrices in {directory} are 0: "
            "it is as before training. Give the trained adapter."
        )


_PAIRS = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_embedding_A", ".lora_embedding_B"),
)


@dataclass(frozen=True)
class _Adapter:
    """What is needed to check one tensor of an adapter.

    Args:
        directory: The adapter's.
        base: What it is added to.
        rank: Of all its products.
        scaling: Their factor.
    """

    directory: Path
    base: Checkpoint
    rank: int
    scaling: float

    def refused(self, name: str, reason: str) -> SpecError:
        """Return what to say of a tensor that cannot be added."""
        return SpecError(
            f"An adapter must change tensors of the base, but {name!r} of {self.directory} does "
            f"not fit {self.base.directory}: {reason}. Give the base that it was trained on, or "
            f"the result of merging it with PEFT (merge_and_unload)."
        )

    def target(self, name: str) -> str:
        """Return the name in the base's files of a tensor that PEFT names after the live model."""
        plain = name.removeprefix(PREFIX)
        if plain in self.base.layout:
            return plain
        found = tensor_table(self.base).file_names.get(plain)
        if found is None:
            raise self.refused(plain, "it has no such tensor, at least not by itself")
        return found

    def product(
        self, target: str, matrices: tuple[Tensor, Tensor], of_embeddings: bool
    ) -> LoraTensor:
        """Return a weight with the product of its two matrices.

        PEFT keeps those of embeddings transposed: `r x vocabulary`, `width x r`.
        """
        a, b = (matrices[1].T, matrices[0].T) if of_embeddings else matrices
        a, b = a.contiguous(), b.contiguous()
        if a.dim() != 2 or b.dim() != 2 or a.shape[0] != self.rank or b.shape[1] != self.rank:
            raise self.refused(
                target,
                f"its matrices {tuple(a.shape)} and {tuple(b.shape)} must have r = "
                f"{self.rank} in between",
            )
        if of_embeddings or is_head(target):
            self._check_untied(target)
        return self.sum(target, a, b)

    def sum(self, target: str, a: Tensor, b: Tensor) -> LoraTensor:
        """Return a tensor of the base with a product added, of its own shape."""
        origin = self.base.tensor(target)
        expected = (b.shape[0], a.shape[1]) if len(origin.shape) == 2 else (b.shape[0],)
        if tuple(origin.shape) != expected:
            raise self.refused(
                target, f"the adapter's is {expected}, the base's {tuple(origin.shape)}"
            )
        self._check_finite(target, a, b)
        return LoraTensor(origin, a, b, self.scaling)

    def whole(self, name: str, tensor: FileTensor) -> str:
        """Return the name of a tensor that the adapter replaces: one that was trained whole."""
        if "lora_" in name or "token_adapter" in name:
            raise self.refused(name, "this kind of change is not understood")
        target = self.target(name.replace(".modules_to_save.", ".").replace(".base_layer.", "."))
        shape = self.base.tensor(target).shape
        if tensor.shape != shape:
            raise self.refused(
                target, f"the adapter's is {tuple(tensor.shape)}, the base's {tuple(shape)}"
            )
        return target

    def _check_finite(self, target: str, *matrices: Tensor) -> None:
        if not all(bool(matrix.isfinite().all()) for matrix in matrices):
            raise SpecError(
                f"An adapter's matrices must be finite, but those for {target!r} in "
                f"{self.directory} hold NaN or infinities. Train it again, or leave it out."
            )

    def _check_untied(self, target: str) -> None:
        if is_tied(self.base):
            side = "output" if is_head(target) else "input"
            raise self.refused(
                target,
                "its output matrix is the embeddings, which the adapter "
                f"changes at the {side} alone",
            )


def _tied(
    found: dict[str, FileTensor | LoraTensor], heads: list[FileTensor], adapter: _Adapter
) -> dict[str, FileTensor | LoraTensor]:
    """Check that embeddings and head stay one matrix where the base's are.

    Args:
        found: What becomes of the base's tensors.
        heads: Output matrices that were trained whole: PEFT saves one beside the embeddings.
        adapter: Of all.
    """
    name = embeddings_name(found)
    own = None if name is None else found[name]
    for head in heads:
        if not isinstance(own, FileTensor) or not same(head, own):
            raise adapter.refused(
                "lm_head.weight", "there it is the embeddings, here it has numbers of its own"
            )
    copies = tensor_table(adapter.base).heads if own is not None else []
    return found | {copy: own for copy in copies if own is not None}
