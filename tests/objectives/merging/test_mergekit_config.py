"""mergekit configurations name every tensor's weight."""

from typing import Any

import pytest
import yaml

from mergefront.errors import SpecError
from mergefront.examples.demo import BASE
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.merging import MergePlan, MergeSettings, mergekit_yaml
from mergefront.objectives.merging.sources import Cut


def _value(entries: list[dict[str, Any]], tensor: str) -> float:
    """Read a setting as mergekit does: the first entry whose filter is part of the name."""
    return float(next(entry["value"] for entry in entries if entry["filter"] in tensor))


def _content(settings: MergeSettings) -> tuple[MergePlan, dict[str, tuple[float, ...]], Any]:
    plan = MergePlan(Checkpoint(BASE).layout, settings)
    n = settings.n_experts
    groups = {g: tuple(0.01 * (i + 10 * k) for k in range(n)) for i, g in enumerate(plan.groups)}
    models = ["base", *(f"expert-{k}" for k in range(n))]
    return plan, groups, yaml.safe_load(mergekit_yaml(plan, groups, models, "bfloat16"))


@pytest.mark.parametrize("granularity", ["uniform", "thirds", "layer", "layer-module"])
@pytest.mark.parametrize("operator", ["linear", "task_arithmetic", "ties"])
def test_every_tensor_finds_its_weight(operator: str, granularity: Any) -> None:
    settings = MergeSettings(operator, granularity, "search", "merge", n_experts=2)
    plan, groups, content = _content(settings)
    experts = content["models"][1:] if operator == "linear" else content["models"]
    for name, weights in plan.tensor_weights(groups).items():
        assert not isinstance(weights, Cut)
        for weight, model in zip(weights, experts, strict=True):
            assert _value(model["parameters"]["weight"], name) == pytest.approx(weight)
        if operator == "linear":
            base = _value(content["models"][0]["parameters"]["weight"], name)
            assert base == pytest.approx(1 - sum(weights))


def test_layers_1_and_11_have_filters_of_their_own() -> None:
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(12)]
    plan = MergePlan(names, MergeSettings("slerp"))
    groups = {group: (i / 100,) for i, group in enumerate(plan.groups)}
    content = yaml.safe_load(mergekit_yaml(plan, groups, ["a", "b"], "float32"))
    assert [_value(content["parameters"]["t"], name) for name in names] == [
        i / 100 for i in range(12)
    ]


def test_densities_and_parameters_are_written() -> None:
    settings = MergeSettings(
        "breadcrumbs", density={"default": 0.5, "layer_002": 0.9}, parameters={"lambda": 1.2}
    )
    plan, _, content = _content(settings)
    parameters = content["models"][0]["parameters"]
    assert content["base_model"] == "base"
    assert content["dtype"] == "float32"
    assert content["out_dtype"] == "bfloat16"
    assert content["parameters"] == {"lambda": 1.2, "normalize": False, "rescale": False}
    assert parameters["gamma"] == 0.01
    assert _value(parameters["density"], plan.tensors_of("layer_002")[0]) == 0.9
    assert _value(parameters["density"], "lm_head.weight") == 0.5


@pytest.mark.parametrize("operator", ["dare_ties", "karcher", "sce"])
def test_what_mergekit_cannot_make_is_refused(operator: str) -> None:
    with pytest.raises(SpecError, match="another model there"):
        _content(MergeSettings(operator))
