"""Where merged tensors go: a live module's parameters, a stream of tensors; see also `files`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from ...errors import LayoutError
from ..checkpoints.lora_tensor import LoraTensor
from ..checkpoints.tensor_files import FileTensor
from ..checkpoints.tensors import TensorTable
from .derived import live_plan, live_tensors, parent_tensors, table_plan
from .merger import Merger, ParentTensors, Resident, check_finite, chunk_for
from .plan import Candidate, MergePlan, Weights
from .precision import Format, round_weight
from .recipe import Recipe
from .settings import MergeSettings
from .sources import Cut
from .threads import one_thread

# Models below this many parameters are merged before a second thread would have started.
_WORTH_THREADS = 10_000_000


class ModuleSink:
    """Overwrites a live module's tensors with merges of its parents, which stay resident.

    Its tensors are its parameters and what else a checkpoint holds of it: persistent buffers, such
    as the biases of some routers. Masks of sparsifying operators are kept between candidates, one
    byte per element and expert.

    Args:
        module: The module to overwrite; holds the base's weights when passed in.
        experts: Modules of the same architecture; their tensors are kept, not copied.
        settings: The operator and how it is parametrised.
        tied: Whether the output matrix is the embeddings.
        table: Of the base's files: what the module's tensors are called there.

    Raises:
        LayoutError: If an expert lacks a tensor or one has another shape, a tensor is not finite,
            or no rule covers one.
    """

    def __init__(
        self,
        module: nn.Module,
        experts: Sequence[nn.Module],
        settings: MergeSettings,
        tied: bool = False,
        table: TensorTable | None = None,
    ) -> None:
        self.parameters = live_tensors(module)
        self.plan = MergePlan(self.parameters, settings, tied)
        names = {} if table is None else table.file_names
        if table is not None:
            self.plan = live_plan(table, table_plan(table, settings))
            self.parameters = {n: t for n, t in self.parameters.items() if n in self.plan.parts}
        device = next(iter(self.parameters.values())).device
        self._on_cpu = device.type == "cpu"
        self._chunk = chunk_for(device)
        # Masks of every arm would be too many to keep.
        self._merger = None if settings.arms else settings.merger(True, self._chunk)
        parents = [parent_tensors(model, self.parameters) for model in (module, *experts)]
        # Loaded weights are pages of a mapped file, shared by all processes of a host. The parents
        # stay that way; only what is overwritten gets memory of its own, before the first merge.
        for parameter in self.parameters.values():
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        # Random masks depend on a tensor's name: that in the files, as in an export.
        self._inputs = {
            name: ParentTensors(
                names.get(name, name),
                Resident(parents[0][name]),
                [Resident(p[name]) for p in parents[1:]],
            )
            for name in self.parameters
        }

    def write(self, groups: Mapping[str, Sequence[float]]) -> None:
        """Write a candidate into the module.

        Large models are merged by as many threads as torch may use, each on tensors of its own:
        threads inside an operation would wait for each other after every chunk.

        Args:
            groups: The weights of every search variable, one number per expert.

        Raises:
            LayoutError: If a result is not finite. The module is then no model; the next candidate
                overwrites all of it.
        """
        candidate = self.plan.at(groups)
        weights = candidate.plan.tensor_weights(candidate.groups)
        merger = self._merger or candidate.plan.settings.merger(chunk=self._chunk)
        size = {name: tensor.numel() for name, tensor in self.parameters.items()}

        def write_one(name: str) -> None:
            self._write_one(name, weights[name], candidate, merger)

        with one_thread() as n_threads, torch.no_grad():
            if n_threads == 1 or not self._on_cpu or sum(size.values()) < _WORTH_THREADS:
                for name in size:
                    write_one(name)
                return
            largest_first = sorted(size, key=lambda name: -size[name])
            with ThreadPoolExecutor(n_threads) as pool:
                list(pool.map(write_one, largest_first))

    def write_parent(self, parent: int) -> None:
        """Write a parent itself, whatever the operator: 0 the base, 1 the first expert."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                given = self._inputs[name]
                source = given.base if parent == 0 else given.experts[parent - 1]
                parameter.copy_(source.stored(0, source.numel()).view(parameter.shape))

    def _write_one(
        self, name: str, weights: Weights | Cut, candidate: Candidate, merger: Merger
    ) -> None:
        out = self.parameters[name].detach()
        inputs = self._inputs[name].only(candidate.experts)
        density = candidate.plan.density_of(name, candidate.groups)
        with torch.no_grad():  # a property of the thread
            merger.merge(inputs, weights, out, density)
            check_finite(inputs.name, out)
            _round(out, candidate.plan.format_of(name, candidate.groups))


def stream(
    recipe: Recipe,
    groups: Mapping[str, Sequence[float]],
    names: Iterable[str] | None = None,
    merger: Merger | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Yield the merged tensors under their checkpoint names.

    Needs the memory of one tensor. By default tensors come layer by layer, the embeddings first
    and the head last, as engines want them that load a layer at a time.

    Args:
        recipe: The sources and the rule of every tensor.
        groups: The weights of every search variable, one number per expert.
        names: Which tensors, in which order; all of them by default.
        merger: Of the recipe's settings, where masks are kept between candidates; none where the
            arm is searched.

    Raises:
        LayoutError: If a tensor of an expert has another shape, an integer tensor differs, or a
            result is not finite.
    """
    recipe, groups = recipe.at(groups)
    weights = recipe.plan.tensor_weights(groups)
    merger = merger or recipe.plan.settings.merger()
    for name in by_layer(recipe.plan) if names is None else names:
        density = recipe.plan.density_of(name, groups)
        # Left before each tensor is given away: whoever stops in the middle keeps neither setting.
        with one_thread(), torch.no_grad():
            merged = _merged(recipe, merger, name, weights[name], density)
            _round(merged, recipe.plan.format_of(name, groups))
        yield name, merged


def _round(merged: Tensor, form: Format | None) -> None:
    """Make a merged tensor what it is as it is served."""
    if form is not None:
        round_weight(merged, form)


def by_layer(plan: MergePlan) -> list[str]:
    """Return all tensor names: embeddings, layers in order, head."""
    rank = {"embeddings": -1, "head": plan.n_layers}
    return sorted(
        plan.parts,
        key=lambda n: (rank.get(plan.parts[n].kind, plan.parts[n].index or 0), n),
    )


def _merged(
    recipe: Recipe, merger: Merger, name: str, weights: Weights | Cut, density: float
) -> Tensor:
    sources = recipe.sources(name)
    if not sources[0].dtype.is_floating_point:
        return copied(name, sources)
    out = torch.empty(sources[0].shape, dtype=recipe.dtype_of(name))
    inputs = ParentTensors(name, sources[0], sources[1:])
    merger.merge(inputs, weights, out, density)
    check_finite(name, out)
    return out


def copied(name: str, sources: Sequence[FileTensor | LoraTensor]) -> Tensor:
    """Return a tensor of integers, which is no candidate's but all models'.

    Raises:
        LayoutError: If it differs between models.
    """
    tensors = [source.load() for source in sources]
    if not all(torch.equal(tensors[0], tensor) for tensor in tensors[1:]):
        raise LayoutError(f"An integer tensor must be equal in all models, but {name!r} differs.")
    return tensors[0]
