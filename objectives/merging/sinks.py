"""Where merged tensors go: a live module's parameters, or a checkpoint on disk."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...errors import LayoutError
from .engine import check_same_tensor, merge_tensor
from .operators import OPERATORS, Operator
from .plan import MergePlan, Weights
from .reader import TOKENIZER_FILES, Checkpoint

_COPIED_FILES = (*TOKENIZER_FILES, "generation_config.json")


class ModuleSink:
    """Overwrites a live module's parameters with merges of its parents, which stay resident.

    Args:
        module: The module to overwrite; holds the base's weights when passed in.
        experts: Modules of the same architecture; their tensors are kept, not copied.
        operator: The formula.

    Raises:
        LayoutError: If an expert lacks a parameter, or one has another shape.
    """

    def __init__(
        self, module: nn.Module, experts: Sequence[nn.Module], operator: Operator
    ) -> None:
        self.parameters: dict[str, Tensor] = dict(module.named_parameters())
        self._operator = operator
        self._base = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._experts = [_detached(expert) for expert in experts]
        self._check()

    def write(self, weights: Mapping[str, Weights]) -> None:
        """Write the candidate with the given weights, one tuple a tensor, into the module."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                counterparts = [expert[name] for expert in self._experts]
                out = parameter.detach()
                merge_tensor(self._operator, self._base[name], counterparts, weights[name], out)

    def _check(self) -> None:
        for expert in self._experts:
            if expert.keys() != self._base.keys():
                differing = sorted(expert.keys() ^ self._base.keys())
                raise LayoutError(
                    f"Models must have the same parameters, but differ in {differing}."
                )
            for name, tensor in self._base.items():
                check_same_tensor(name, tensor, expert[name])


def _detached(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


@dataclass(frozen=True)
class Recipe:
    """All that determines a merged checkpoint's bytes, besides the candidate's weights.

    Args:
        base: Weight 0.
        experts: Weight 1 each.
        plan: Built from the base checkpoint's tensor names.
        dtype: Sources are cast to it before the merge, as when they are loaded for a search.
    """

    base: Checkpoint
    experts: Sequence[Checkpoint]
    plan: MergePlan
    dtype: torch.dtype


def write_checkpoint(recipe: Recipe, groups: Mapping[str, Sequence[float]], out: Path) -> None:
    """Write the merged model with the base's shards, tokenizer and configuration.

    Needs the memory of one shard, whatever the model's size.

    Args:
        recipe: The sources and the rule of every tensor.
        groups: The weights of every search variable, one number an expert.
        out: The directory; created.
    """
    out.mkdir(parents=True, exist_ok=True)
    weights = recipe.plan.tensor_weights(groups)
    total = 0
    for file in recipe.base.files:
        shard = {
            name: _merged(recipe, name, tensor, weights)
            for name, tensor in recipe.base.tensors(file)
        }
        save_file(shard, out / file, metadata={"format": "pt"})
        total += sum(tensor.nbytes for tensor in shard.values())
    _write_index(recipe.base, total, out)
    _write_config(recipe, out)
    for name in _COPIED_FILES:
        if (recipe.base.directory / name).is_file():
            shutil.copyfile(recipe.base.directory / name, out / name)


def _merged(recipe: Recipe, name: str, tensor: Tensor, weights: Mapping[str, Weights]) -> Tensor:
    counterparts = [expert.tensor(name) for expert in recipe.experts]
    for counterpart in counterparts:
        check_same_tensor(name, tensor, counterpart)
    if not tensor.is_floating_point():
        return _copied(name, tensor, counterparts)
    base = tensor.to(recipe.dtype)
    out = torch.empty_like(base, memory_format=torch.contiguous_format)
    operator = OPERATORS[recipe.plan.settings.operator]
    cast = [counterpart.to(recipe.dtype) for counterpart in counterparts]
    merge_tensor(operator, base, cast, weights[name], out)
    return out


def _copied(name: str, tensor: Tensor, counterparts: Sequence[Tensor]) -> Tensor:
    if not all(torch.equal(tensor, counterpart) for counterpart in counterparts):
        raise LayoutError(f"An integer tensor must be equal in all models, but {name!r} differs.")
    return tensor


def _write_index(base: Checkpoint, total_bytes: int, out: Path) -> None:
    name = "model.safetensors.index.json"
    if (base.directory / name).is_file():
        index = {"metadata": {"total_size": total_bytes}, "weight_map": base.layout}
        (out / name).write_text(json.dumps(index, indent=2) + "\n")


def _write_config(recipe: Recipe, out: Path) -> None:
    config = dict(recipe.base.config)
    config.pop("torch_dtype", None)  # its name before transformers 5
    config["dtype"] = str(recipe.dtype).removeprefix("torch.")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
