"""Plans derived from a checkpoint's table of tensors, one for each space of names.

Files, the live model of transformers and that of vLLM call tensors by different names and fuse
some. All follow one plan: their groups must be equal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import EvaluationError, LayoutError, SpecError
from ..checkpoints.reader import Checkpoint
from ..checkpoints.tensors import TensorTable, same, tensor_table
from .heads import count_heads
from .layers import Part, is_router, locate_all
from .merger import check_finite
from .operators import OPERATORS
from .plan import MergePlan
from .settings import MergeSettings

_SHOWN = 3


def plan_of(base: Checkpoint, settings: MergeSettings) -> MergePlan:
    """Return the plan of a study, over the names of the base's files.

    Raises:
        SpecError: If files and model do not fit together.
        LayoutError: If no rule covers a tensor.
    """
    table = tensor_table(base)
    if settings.granularity == "heads":
        settings = replace(settings, n_heads=count_heads(base, table.merged))
    plan = table_plan(table, settings)
    if table.model is not None:
        live_plan(table, plan)
    return plan


def table_plan(table: TensorTable, settings: MergeSettings) -> MergePlan:
    """Return a plan over the names of a table."""
    plan = MergePlan(table.merged, settings, table.tied)
    if settings.precision is None:
        return plan
    return MergePlan.of_parts(_with_linear(table, plan.parts), settings)


def _with_linear(table: TensorTable, parts: Mapping[str, Part]) -> dict[str, Part]:
    """Return parts that know which of them are matrices of linear layers inside the layers.

    Routers stay as they are merged: no engine serves them in few bits.
    """
    linear = linear_modules(table)
    return {
        name: replace(part, linear=True)
        if part.kind == "layer" and name in linear and not is_router(name)
        else part
        for name, part in parts.items()
    }


def linear_modules(table: TensorTable) -> dict[str, str]:
    """Return the linear layers that loading takes from one tensor: its name -> the module's."""
    modules = {} if table.model is None else dict(table.model.named_modules())
    names = {file: live.removesuffix(".weight") for live, file in table.file_names.items()}
    return {n: m for n, m in names.items() if isinstance(modules.get(m), nn.Linear)}


def check_precision(base: Checkpoint, plan: MergePlan) -> None:
    """Refuse a precision of layers that cannot have it.

    Raises:
        SpecError: If it is not known which layers are linear, none is, loading fuses some, or
            there are more groups than layers.
    """
    precision, table = plan.settings.precision, tensor_table(base)
    if precision is None:
        return
    fused = [x for x in table.links if x.transform is not None and _in_layers(x.sources, plan)]
    if fused:
        raise SpecError(
            "`merge.precision` rounds linear layers as the checkpoint holds them, but loading "
            f"fuses {fused[0].sources[0]!r} with others. Remove it."
        )
    if not any(part.linear for part in plan.parts.values()):
        raise SpecError(
            "`merge.precision` needs linear layers that transformers knows, but it finds none in "
            f"the layers of {base.directory}. Remove it."
        )
    if precision.groups > plan.n_layers:
        raise SpecError(
            f"`merge.precision.groups` must be at most the model's {plan.n_layers} layers, but "
            f"got {precision.groups}."
        )


def _in_layers(names: Iterable[str], plan: MergePlan) -> bool:
    return any(name in plan.parts and plan.parts[name].kind == "layer" for name in names)


def live_plan(table: TensorTable, plan: MergePlan) -> MergePlan:
    """Return the same plan over the names of the live model.

    Raises:
        LayoutError: If loading fuses tensors of different groups.
    """
    parts: dict[str, Part] = {}
    for link in table.links:
        variables = {plan.variables_of(name) for name in link.sources}
        if len(variables) > 1:
            raise LayoutError(
                f"Tensors that loading fuses must belong to one group, but {link.sources[0]!r} "
                f"and others become {link.targets[0]!r} and belong to {sorted(variables)}."
            )
        if link.transform is not None and len(next(iter(variables))) > 1:
            raise LayoutError(
                f"Granularity 'heads' needs {link.sources[0]!r} as a tensor of its own, but "
                f"loading makes it a part of {link.targets[0]!r}. Use granularity 'layer'."
            )
        parts |= dict.fromkeys(link.targets, plan.parts[link.sources[0]])
    for one, other in table.ties.items():  # a file may hold either
        parts |= {n: parts[m] for n, m in ((one, other), (other, one)) if m in parts}
    live = MergePlan.of_parts(parts, plan.settings)
    return _of_equal_groups(live, plan)


def engine_plan(names: Iterable[str], plan: MergePlan, tied: bool) -> MergePlan:
    """Return the same plan over the names of another engine's model.

    Raises:
        LayoutError: If no rule covers one, or the groups are others.
    """
    located = MergePlan.of_parts(locate_all(names, tied), plan.settings)
    return _of_equal_groups(located, plan)


def _of_equal_groups(live: MergePlan, plan: MergePlan) -> MergePlan:
    if live.groups != plan.groups:
        differing = sorted({*live.groups} ^ {*plan.groups})
        raise LayoutError(
            "Files and live model must have the same groups of tensors, but they differ in "
            f"{differing[:_SHOWN]}."
        )
    return live


def live_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers, each once; integers stay as they are."""
    saved = module.state_dict().keys()
    buffers = {
        name: buffer
        for name, buffer in module.named_buffers()
        if name in saved and buffer.is_floating_point()
    }
    return {**dict(module.named_parameters()), **buffers}


def parent_tensors(module: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return the tensors of a parent under the names of the live module.

    Raises:
        LayoutError: If one is missing or not finite.
    """
    saved, wanted = module.state_dict(), {*names}
    more = {name for name, _ in module.named_parameters()} - wanted
    # An output matrix of its own may be a copy of the embeddings.
    more = {name for name in more if not name.endswith("lm_head.weight")}
    differing = sorted(more | (wanted - saved.keys()))
    if differing:
        raise LayoutError(f"Models must have the same tensors, but differ in {differing}.")
    tensors = {}
    for name in names:
        check_finite(name, saved[name])
        tensors[name] = saved[name].detach().contiguous()
    return tensors


def check_operator_fits(base: Checkpoint, settings: MergeSettings) -> None:
    """Refuse operators that look at whole tensors where loading fuses tensors.

    Raises:
        EvaluationError: If the live tensors are not those of the files.
    """
    operators = (OPERATORS[fixed.operator] for fixed in settings.fixed())
    whole = [each for each in operators if not each.elementwise or each.sparsify is not None]
    if whole and (fused := sorted(tensor_table(base).converted)):
        raise EvaluationError(
            f"Operator {whole[0].name!r} works on the checkpoint's own tensors, but loading fused "
            f"some, e.g. {fused[0]!r}. Use an elementwise operator such as 'linear'."
        )


def check_towers(base: Checkpoint, experts: tuple[Checkpoint, ...], plan: MergePlan) -> None:
    """Refuse experts whose towers are not the base's, where the base's are kept unasked.

    Raises:
        SpecError: With the first tensor that differs.
    """
    if plan.settings.towers != "equal":
        return
    table = tensor_table(base)
    for name in (name for name, part in plan.parts.items() if part.kind == "tower"):
        for expert in experts:
            other = table.source(expert, name)
            if other is None or not same(base.tensor(name), other):
                raise SpecError(
                    f"An expert's vision and audio towers must be the base's, but {name!r} of "
                    f"{expert.directory} differs. Say whose to take: merge.towers: base, expert, "
                    "merge or search."
                )


def check_loaded(model: Any, checkpoint: Checkpoint, base: Checkpoint) -> None:
    """Compare a loaded model with its files, bit for bit.

    What is hashed, merged on disk and exported must be what is measured.

    Args:
        model: As it was loaded, on any device.
        checkpoint: Its files; those of an adapter give the merged tensors.
        base: Whose table names the tensors.

    Raises:
        LayoutError: At the first tensor that differs.
    """
    table, live = tensor_table(base), model.state_dict()

    def read(name: str) -> Tensor:
        source = table.source(checkpoint, name)
        assert source is not None, "checked when it was opened"
        return source.load()

    for link in table.links:
        for name, expected in link.convert(read, model).items():
            found = live[name]
            if not torch.equal(found, expected.to(found.device, found.dtype)):
                if expected.is_floating_point() and expected.isnan().any():
                    raise LayoutError(
                        f"Weights must be numbers, but {link.sources[0]!r} of "
                        f"{checkpoint.directory} holds NaN. Fetch the model again, or choose "
                        "another."
                    )
                raise LayoutError(
                    f"A loaded model must equal its files, but {name!r} is not "
                    f"{link.sources[0]!r} of {checkpoint.directory}. Report it with the version "
                    "of transformers."
                )
