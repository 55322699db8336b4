"""From search variables to the weights of every tensor."""

import pytest

from mergefront.errors import LayoutError
from mergefront.objectives.merging import MergePlan, MergeSettings, parse_weights

NAMES = [
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.1.self_attn.q_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.norm.weight",
    "lm_head.weight",
]


def test_names_are_zero_padded_and_ordered_layers_first() -> None:
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(12)] + NAMES[:1]
    plan = MergePlan(names, MergeSettings(embeddings="search"))
    assert plan.groups[0] == "layer_000"
    assert plan.groups[10:] == ("layer_010", "layer_011", "embeddings")


def test_merge_rule_ties_edges_to_the_mean_layer_weight() -> None:
    plan = MergePlan(NAMES, MergeSettings())
    weights = plan.tensor_weights({"layer_000": (0.2,), "layer_001": (0.6,)})
    assert weights["model.embed_tokens.weight"] == pytest.approx((0.4,))  # (0.2 + 0.6) / 2
    assert weights["lm_head.weight"] == pytest.approx((0.4,))
    assert weights["model.layers.1.mlp.up_proj.weight"] == (0.6,)


def test_edges_fixed_to_a_parent_ignore_the_layers() -> None:
    plan = MergePlan(NAMES, MergeSettings(embeddings="base", head="expert"))
    weights = plan.tensor_weights({"layer_000": (0.2,), "layer_001": (0.6,)})
    assert weights["model.embed_tokens.weight"] == (0.0,)
    assert weights["model.norm.weight"] == (1.0,)


def test_several_experts_have_one_parameter_each_a_group() -> None:
    plan = MergePlan(NAMES, MergeSettings(n_experts=2))
    assert plan.parameter_names == ["layer_000@1", "layer_000@2", "layer_001@1", "layer_001@2"]
    groups = plan.group_weights(dict(zip(plan.parameter_names, (0.1, 0.2, 0.3, 0.4), strict=True)))
    assert groups == {"layer_000": (0.1, 0.2), "layer_001": (0.3, 0.4)}
    assert plan.group_weights(plan.expert(2)) == {"layer_000": (0, 1), "layer_001": (0, 1)}
    assert plan.group_weights(plan.uniform(1.0))["layer_001"] == (0.5, 0.5)


def test_a_missing_or_unknown_parameter_is_an_error() -> None:
    plan = MergePlan(NAMES, MergeSettings())
    with pytest.raises(LayoutError, match=r"missing=\['layer_001'\].*unknown=\['layer_1'\]"):
        plan.group_weights({"layer_000": 0.5, "layer_1": 0.5})


def test_a_weight_file_names_each_group_or_uniform_alone() -> None:
    plan = MergePlan(NAMES, MergeSettings(n_experts=2))
    assert parse_weights(plan, {"uniform": [0.5, 0.25]}) == dict.fromkeys(plan.groups, (0.5, 0.25))
    with pytest.raises(LayoutError, match="layer_001"):
        parse_weights(plan, {"layer_000": [0.5, 0.5]})
    with pytest.raises(LayoutError, match=r"2 finite number.*'layer_000' has 0\.5"):
        parse_weights(plan, {"layer_000": 0.5, "layer_001": [0.5, 0.5]})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5", True, None, [0.5, 0.5]])
def test_a_weight_file_holds_finite_numbers(value: object) -> None:
    plan = MergePlan(NAMES, MergeSettings())
    with pytest.raises(LayoutError, match="1 finite number"):
        parse_weights(plan, {"layer_000": value, "layer_001": 0.5})
