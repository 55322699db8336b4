"""Write a candidate as a mergekit configuration."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ....errors import SpecError
from ..operators import OPERATORS
from ..plan import MergePlan, Weights
from ..precision import FORMATS, PRECISION, precisions
from ..sources import Cut

# Operators whose formula mergekit applies with the same weights. The others draw random masks from
# another stream, or have no weights there.
_SAME = (
    "linear",
    "task_arithmetic",
    "ties",
    "breadcrumbs",
    "breadcrumbs_ties",
    "slerp",
    "nearswap",
)
_SWITCHES = ("normalize", "rescale")
# As mergekit reads it: `PATH[@REVISION]`, or `{model: {path, revision}, lora: {path, revision}}`.
MergekitModel = str | dict[str, dict[str, str]]


def mergekit_yaml(
    plan: MergePlan,
    groups: Mapping[str, Sequence[float]],
    models: Sequence[MergekitModel],
    dtype: str,
) -> str:
    """Return a configuration with which mergekit makes the same model, up to rounding.

    Every weight is tied to its tensors by a filter. Without filters mergekit would give the
    embeddings and the head the first layer's weight.

    Args:
        plan: Of the study.
        groups: The weights of every search variable, one number per expert.
        models: Base and experts, as paths or hub ids, or as mappings where those do not do.
        dtype: Of the merged model; mergekit computes in float32, as we do.

    Raises:
        SpecError: If mergekit has no operator that gives the same model.
    """
    name = plan.settings.operator
    if name not in _SAME:
        raise SpecError(
            f"A mergekit configuration can be written for {', '.join(_SAME)}, but operator "
            f"{name!r} gives another model there. Export the checkpoint instead."
        )
    if plan.settings.granularity == "heads":
        raise SpecError(
            "A mergekit configuration gives a tensor one weight, but granularity 'heads' cuts "
            "some. Export the checkpoint instead."
        )
    if plan.settings.n_experts > 1 and OPERATORS[name].max_experts == 1:
        raise SpecError(
            f"A mergekit configuration is one merge, but operator {name!r} merges "
            f"{plan.settings.n_experts} experts one after the other. Export the checkpoint "
            "instead."
        )
    found = plan.tensor_weights(groups)
    weights = {name: row for name, row in found.items() if not isinstance(row, Cut)}
    content: dict[str, Any] = {"merge_method": name, "dtype": "float32", "out_dtype": dtype}
    if name in _METHODS:
        content |= _METHODS[name](plan, weights, models)
    else:
        density = {tensor: (plan.density_of(tensor, groups),) for tensor in weights}
        content |= _task_vectors(plan, weights, density, models)
    content = json.loads(json.dumps(content))  # a model that is named twice is written twice
    return _no_precision(plan, groups) + str(yaml.safe_dump(content, sort_keys=False))


def _no_precision(plan: MergePlan, groups: Mapping[str, Sequence[float]]) -> str:
    """Return a comment that says what a configuration cannot: that layers are rounded."""
    precision = plan.settings.precision
    if precision is None:
        return ""
    chosen = precisions(precision.params(groups[PRECISION])) if precision.names else ""
    rounded = chosen or precision.choices[0]
    if FORMATS.keys().isdisjoint(rounded.split("/")):
        return ""
    return (
        f"# mergekit knows no precision: this makes the model before its linear layers are "
        f"rounded to {rounded}.\n"
    )


def _linear(
    plan: MergePlan, weights: Mapping[str, Weights], models: Sequence[MergekitModel]
) -> dict[str, Any]:
    """Every input has a weight; the base has what is left to 1."""
    shares = {name: (1 - sum(w), *w) for name, w in weights.items()}
    listed = [
        {"model": model, "parameters": {"weight": _filters(plan, shares, k)}}
        for k, model in enumerate(models)
    ]
    return {"models": listed, "parameters": {"normalize": False}}


def _task_vectors(
    plan: MergePlan,
    weights: Mapping[str, Weights],
    density: Mapping[str, Weights],
    models: Sequence[MergekitModel],
) -> dict[str, Any]:
    sparse = OPERATORS[plan.settings.operator].sparsify is not None
    options = OPERATORS[plan.settings.operator].options(plan.settings.parameters)
    shared = {key: bool(value) if key in _SWITCHES else value for key, value in options.items()}
    of_models = {"gamma": shared.pop("gamma")} if "gamma" in shared else {}
    listed = []
    for k, model in enumerate(models[1:]):
        parameters: dict[str, Any] = {"weight": _filters(plan, weights, k), **of_models}
        if sparse:
            parameters["density"] = _filters(plan, density, 0)
        listed.append({"model": model, "parameters": parameters})
    return {"base_model": models[0], "models": listed, "parameters": shared}


def _slerp(
    plan: MergePlan, weights: Mapping[str, Weights], models: Sequence[MergekitModel]
) -> dict[str, Any]:
    return {
        "base_model": models[0],
        "models": [{"model": model} for model in models],
        "parameters": {"t": _filters(plan, weights, 0)},
    }


_METHODS = {"linear": _linear, "slerp": _slerp, "nearswap": _slerp}


def _filters(
    plan: MergePlan, values: Mapping[str, Sequence[float]], k: int
) -> list[dict[str, Any]]:
    """Return one entry per layer where its tensors agree, else one per tensor."""
    by_layer: dict[str, set[float]] = {}
    for name, row in values.items():
        by_layer.setdefault(_place(plan, name), set()).add(row[k])
    entries: dict[str, float] = {}
    for name, row in values.items():
        place = _place(plan, name)
        entries[place if len(by_layer[place]) == 1 else name] = row[k]
    return [{"filter": place, "value": value} for place, value in entries.items()]


def _place(plan: MergePlan, name: str) -> str:
    """Return text that is part of the names of this tensor's layer alone."""
    index = plan.parts[name].index
    if index is None:
        return name
    layer = name[: name.index(f".{index}.") + len(f".{index}.")]
    if any(part.kind == "tower" for part in plan.parts.values()):
        return layer  # towers have layers of the same numbers
    return ".".join(layer.split(".")[-3:])
