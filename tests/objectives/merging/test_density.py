"""A density that is searched with the weights."""

from dataclasses import replace

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from mergefront.errors import LayoutError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.merging import (
    MergePlan,
    MergeSettings,
    ModuleSink,
    Recipe,
    mergekit_yaml,
    parse_weights,
    stream,
)

SETTINGS = MergeSettings(operator="ties", granularity="thirds", density=(0.3, 0.9))


def _plan(settings: MergeSettings = SETTINGS) -> MergePlan:
    return MergePlan(Checkpoint(BASE).layout, settings)


def _merged(settings: MergeSettings, params: dict[str, float]) -> dict[str, torch.Tensor]:
    plan = _plan(settings)
    recipe = Recipe(Checkpoint(BASE), [Checkpoint(EXPERT)], plan, torch.float32)
    return dict(stream(recipe, plan.group_weights(params)))


def test_a_searched_density_merges_like_a_fixed_one() -> None:
    params = {"block_000": 0.2, "block_001": 0.9, "block_002": 0.5}
    searched = _merged(SETTINGS, {**params, "density": 0.6})
    fixed = _merged(replace(SETTINGS, density=0.6), params)
    other = _merged(replace(SETTINGS, density=0.7), params)
    assert all(torch.equal(searched[name], fixed[name]) for name in fixed)
    assert any(not torch.equal(searched[name], other[name]) for name in fixed)


def test_in_place_and_from_files_alike_after_another_candidate() -> None:
    models = [AutoModelForCausalLM.from_pretrained(path) for path in (BASE, EXPERT)]
    sink = ModuleSink(models[0], models[1:], SETTINGS)
    params = dict.fromkeys(("block_000", "block_001", "block_002"), 0.5)
    for density in (0.4, 0.8):
        sink.write(sink.plan.group_weights({**params, "density": density}))
    expected = _merged(SETTINGS, {**params, "density": 0.8})
    assert all(torch.equal(sink.parameters[name], expected[name]) for name in expected)


def test_the_parents_are_themselves() -> None:
    plan = _plan()
    for params, path in ((plan.uniform(0.0), BASE), (plan.expert(1), EXPERT)):
        assert params["density"] == 1.0
        merged, parent = _merged(SETTINGS, params), Checkpoint(path)
        assert all(torch.equal(merged[n], parent.tensor(n).load().float()) for n in merged)


def test_density_is_a_parameter_with_bounds_of_its_own() -> None:
    plan = _plan()
    assert plan.parameter_names == ["block_000", "block_001", "block_002", "density"]
    assert plan.bounds(0.0, 1.5) == {
        **dict.fromkeys(("block_000", "block_001", "block_002"), (0.0, 1.5)),
        "density": (0.3, 0.9),
    }
    assert plan.uniform(0.4)["density"] == 0.9
    weights = plan.tensor_weights(plan.group_weights({**plan.uniform(0.5), "density": 0.3}))
    assert set(weights.values()) == {(0.5,)}  # the mean layer weight does not count it
    assert not plan.is_dense


def test_weight_files_give_it() -> None:
    plan = _plan()
    assert parse_weights(plan, {"uniform": 0.5, "density": 0.4})["density"] == (0.4,)
    with pytest.raises(LayoutError, match="must give `density`"):
        parse_weights(plan, {"uniform": 0.5})
    with pytest.raises(LayoutError, match="must give `density`"):
        parse_weights(_plan(replace(SETTINGS, density=0.5)), {"uniform": 0.5, "density": 0.4})


def test_mergekit_gets_the_candidates_density() -> None:
    plan = _plan()
    groups = plan.group_weights({**plan.uniform(0.5), "density": 0.4})
    content = yaml.safe_load(mergekit_yaml(plan, groups, ["base", "expert"], "float32"))
    density = content["models"][0]["parameters"]["density"]
    assert {entry["value"] for entry in density} == {0.4}
