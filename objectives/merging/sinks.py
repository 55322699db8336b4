"""Where merged tensors go: a live module's parameters, a stream of tensors, files on disk."""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...errors import LayoutError
from .engine import Inputs, Merger, Resident, check_finite
from .plan import MergePlan, MergeSettings, Weights
from .reader import TOKENIZER_FILES, Checkpoint
from .threads import one_thread

# Models below this many parameters are merged before a second thread would have started.
_WORTH_THREADS = 10_000_000
_COPIED_FILES = (*TOKENIZER_FILES, "generation_config.json")


class ModuleSink:
    """Overwrites a live module's parameters with merges of its parents, which stay resident.

    Masks of sparsifying operators are kept between candidates, one byte an element and expert.

    Args:
        module: The module to overwrite; holds the base's weights when passed in.
        experts: Modules of the same architecture; their tensors are kept, not copied.
        settings: The operator and how it is parametrised.
        tied: Whether the output matrix is the embeddings.

    Raises:
        LayoutError: If an expert lacks a parameter or one has another shape, a parameter is not
            finite, or no rule covers one.
    """

    def __init__(
        self,
        module: nn.Module,
        experts: Sequence[nn.Module],
        settings: MergeSettings,
        tied: bool = False,
    ) -> None:
        self.parameters: dict[str, Tensor] = dict(module.named_parameters())
        self.plan = MergePlan(self.parameters, settings, tied)
        self._merger = settings.merger(remember=True)
        parents = [_named(module, copy=True), *(_named(e, copy=False) for e in experts)]
        _check_same_names(parents)
        self._inputs = {
            name: Inputs(
                name, Resident(parents[0][name]), [Resident(p[name]) for p in parents[1:]]
            )
            for name in self.parameters
        }

    def write(self, groups: Mapping[str, Sequence[float]]) -> None:
        """Write a candidate into the module.

        Large models are merged by as many threads as torch may use, each on tensors of its own:
        threads inside an operation would wait for each other after every chunk.

        Args:
            groups: The weights of every search variable, one number an expert.
        """
        weights = self.plan.tensor_weights(groups)
        size = {name: tensor.numel() for name, tensor in self.parameters.items()}
        with one_thread() as n_threads, torch.no_grad():
            if n_threads == 1 or sum(size.values()) < _WORTH_THREADS:
                for name in size:
                    self._write_one(name, weights[name])
                return
            largest_first = sorted(size, key=lambda name: -size[name])
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(lambda n: self._write_one(n, weights[n]), largest_first))

    def _write_one(self, name: str, weights: Weights) -> None:
        out = self.parameters[name].detach()
        with torch.no_grad():  # a property of the thread
            self._merger.merge(self._inputs[name], weights, out, self.plan.density_of(name))


def _named(module: nn.Module, copy: bool) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in module.named_parameters():
        check_finite(name, parameter)
        tensor = parameter.detach().contiguous()
        tensors[name] = tensor.clone() if copy else tensor
    return tensors


def _check_same_names(models: Sequence[Mapping[str, Tensor]]) -> None:
    for model in models[1:]:
        if model.keys() != models[0].keys():
            differing = sorted(model.keys() ^ models[0].keys())
            raise LayoutError(f"Models must have the same parameters, but differ in {differing}.")


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


def stream(
    recipe: Recipe, groups: Mapping[str, Sequence[float]], names: Iterable[str] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the merged tensors under their checkpoint names.

    Needs the memory of one tensor. By default tensors come layer by layer, the embeddings first
    and the head last, as engines want them that load a layer at a time.

    Args:
        recipe: The sources and the rule of every tensor.
        groups: The weights of every search variable, one number an expert.
        names: Which tensors, in which order; all of them by default.

    Raises:
        LayoutError: If a tensor of an expert has another shape, an integer tensor differs, or a
            result is not finite.
    """
    weights = recipe.plan.tensor_weights(groups)
    merger = recipe.plan.settings.merger()
    with one_thread(), torch.no_grad():
        for name in by_layer(recipe.plan) if names is None else names:
            yield name, _merged(recipe, merger, name, weights[name])


def by_layer(plan: MergePlan) -> list[str]:
    """Return all tensor names: embeddings, layers in order, head."""
    rank = {"embeddings": -1, "head": plan.n_layers}
    return sorted(
        plan.parts,
        key=lambda n: (rank.get(plan.parts[n].kind, plan.parts[n].index or 0), n),
    )


def write_checkpoint(recipe: Recipe, groups: Mapping[str, Sequence[float]], out: Path) -> None:
    """Write the merged model with the base's shards, tokenizer and configuration.

    Needs the memory of one shard, whatever the model's size.

    Args:
        recipe: The sources and the rule of every tensor.
        groups: The weights of every search variable, one number an expert.
        out: The directory; created.
    """
    out.mkdir(parents=True, exist_ok=True)
    total = 0
    for file in recipe.base.files:
        shard = dict(stream(recipe, groups, recipe.base.names(file)))
        save_file(shard, out / file, metadata={"format": "pt"})
        total += sum(tensor.nbytes for tensor in shard.values())
        del shard  # before the next one is read
    _write_index(recipe.base, total, out)
    _write_config(recipe, out)
    for name in _COPIED_FILES:
        if (recipe.base.directory / name).is_file():
            shutil.copyfile(recipe.base.directory / name, out / name)


def _merged(recipe: Recipe, merger: Merger, name: str, weights: Weights) -> Tensor:
    sources = [checkpoint.tensor(name) for checkpoint in (recipe.base, *recipe.experts)]
    if not sources[0].dtype.is_floating_point:
        return _copied(name, [source.load() for source in sources])
    cast = [replace(source, cast=recipe.dtype) for source in sources]
    out = torch.empty(sources[0].shape, dtype=recipe.dtype)
    merger.merge(Inputs(name, cast[0], cast[1:]), weights, out, recipe.plan.density_of(name))
    check_finite(name, out)
    return out


def _copied(name: str, tensors: Sequence[Tensor]) -> Tensor:
    if not all(torch.equal(tensors[0], tensor) for tensor in tensors[1:]):
        raise LayoutError(f"An integer tensor must be equal in all models, but {name!r} differs.")
    return tensors[0]


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
