"""Every tensor of every supported architecture belongs to exactly one part."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mergefront.errors import LayoutError
from mergefront.objectives.merging import MergePlan, MergeSettings, Part, locate, locate_all

_SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 128,
    "pad_token_id": 0,
}
_EXTRA: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen3": {"head_dim": 8},
    "llama": {},
    "mistral": {"head_dim": 8},
    "gemma2": {"head_dim": 8},
    "gemma3_text": {"head_dim": 8},
    "phi3": {},
    "olmo2": {},
    "qwen3_moe": {"head_dim": 8, "num_experts": 4, "moe_intermediate_size": 16},
}


def _meta_model(architecture: str) -> Any:
    config = AutoConfig.for_model(architecture, **_SMALL, **_EXTRA[architecture])
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.fixture(params=sorted(_EXTRA))
def model(request: pytest.FixtureRequest) -> Any:
    return _meta_model(request.param)


@pytest.mark.parametrize("granularity", ["uniform", "layer", "layer-module"])
@pytest.mark.parametrize("edges", ["base", "expert", "merge", "search"])
def test_variables_and_rules_cover_every_tensor_exactly_once(
    model: Any, granularity: Any, edges: Any
) -> None:
    names = [name for name, _ in model.named_parameters()]
    tied = model.config.tie_word_embeddings
    plan = MergePlan(names, MergeSettings("linear", granularity, edges, edges), tied)
    moved = [name for group in plan.groups for name in plan.tensors_of(group)]
    assert len(moved) == len(set(moved))
    by_rule = [name for name, part in plan.parts.items() if part.kind != "layer"]
    expected = names if edges == "search" else set(names) - set(by_rule)
    assert set(moved) == set(expected)
    weights = plan.tensor_weights(dict.fromkeys(plan.groups, (0.25,)))
    assert list(weights) == names


def test_each_layer_variable_moves_the_tensors_of_its_layer_alone(model: Any) -> None:
    modules = dict(model.model.layers.named_children())
    names = [name for name, _ in model.named_parameters()]
    plan = MergePlan(names, MergeSettings())
    for index, module in modules.items():
        own = {f"model.layers.{index}.{name}" for name, _ in module.named_parameters()}
        assert set(plan.tensors_of(f"layer_{int(index):03d}")) == own


def test_layer_1_shares_no_tensor_with_layers_10_to_19(model: Any) -> None:
    plan = MergePlan([name for name, _ in model.named_parameters()], MergeSettings())
    first = set(plan.tensors_of("layer_001"))
    assert all(name.startswith("model.layers.1.") for name in first)
    for index in range(10, 20):
        assert first.isdisjoint(plan.tensors_of(f"layer_{index:03d}"))


def test_attention_and_feed_forward_split_each_layer(model: Any) -> None:
    names = [name for name, _ in model.named_parameters()]
    plan = MergePlan(names, MergeSettings(granularity="layer-module"))
    for index in range(24):
        attn = plan.tensors_of(f"layer_{index:03d}.attn")
        mlp = plan.tensors_of(f"layer_{index:03d}.mlp")
        assert any("self_attn" in name for name in attn)
        assert not any("self_attn" in name for name in mlp)
        assert any(".mlp." in name for name in mlp)
        whole = {name for name in names if f".layers.{index}." in name}
        assert {*attn, *mlp} == whole


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.layers.7.mlp.experts.12.gate_proj.weight", Part("layer", 7, "mlp")),
        ("model.layers.7.mlp.gate.weight", Part("layer", 7, "mlp")),
        ("model.layers.7.self_attn.q_norm.weight", Part("layer", 7, "attn")),
        ("model.layers.7.input_layernorm.weight", Part("layer", 7, "attn")),
        ("model.language_model.layers.10.mlp.up_proj.weight", Part("layer", 10, "mlp")),
        ("model.embed_tokens.weight", Part("embeddings")),
        ("model.norm.weight", Part("head")),
        ("lm_head.weight", Part("head")),
        ("model.vision_tower.encoder.layers.3.mlp.fc1.weight", Part("tower")),
        ("visual.blocks.0.attn.qkv.weight", Part("tower")),
    ],
)
def test_locate_known_names(name: str, part: Part) -> None:
    assert locate(name) == part


def test_norm_after_attention_belongs_to_attention_only_with_sandwich_norms() -> None:
    name = "model.layers.0.post_attention_layernorm.weight"
    assert locate(name) == Part("layer", 0, "mlp")
    assert locate(name, sandwich_norms=True) == Part("layer", 0, "attn")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.3.adapter.weight",
        "model.layers.x.mlp.up_proj.weight",
        "value_head.weight",
    ],
)
def test_a_tensor_that_no_rule_covers_is_an_error(name: str) -> None:
    with pytest.raises(LayoutError, match="no rule covers"):
        locate_all(["model.layers.0.mlp.up_proj.weight", name])


def test_a_gap_in_the_layers_is_an_error() -> None:
    names = [f"model.layers.{index}.mlp.up_proj.weight" for index in (0, 1, 3)]
    with pytest.raises(LayoutError, match=r"\[2\]"):
        locate_all(names)


def test_tied_head_copy_follows_the_embeddings() -> None:
    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight"]
    assert locate_all(names, tied=True)["lm_head.weight"] == Part("embeddings")
    assert locate_all(names, tied=False)["lm_head.weight"] == Part("head")
