"""What changes a forward pass is refused, whatever does not is accepted."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import config_of
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
)

from mergefront.errors import SpecError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint, check_mergeable
from mergefront.objectives.checkpoints.configs import (
    check_same_forward,
    computed_by,
    config_hash,
    load_config,
    positions,
    stop_tokens,
)

SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
}


def _saved(folder: Path, name: str, config: Any, change: Callable[[dict[str, Any]], Any]) -> Path:
    directory = folder / name
    config.save_pretrained(directory)
    path = directory / "config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return directory


def _pair(folder: Path, config: Any, change: Callable[[dict[str, Any]], Any]) -> tuple[Path, Path]:
    return _saved(folder, "a", config, lambda c: None), _saved(folder, "b", config, change)


CHANGES = [
    ("rope_parameters.rope_theta", {"rope_parameters": {"rope_theta": 5e6}}),
    ("rope_parameters.rope_theta", {"rope_parameters": None, "rope_theta": 5e6}),
    (
        "rope_parameters.factor",
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}},
    ),
    ("rms_norm_eps", {"rms_norm_eps": 1e-5}),
    ("hidden_act", {"hidden_act": "gelu"}),
    ("attention_bias", {"attention_bias": True}),
    ("layer_types", {"layer_types": ["sliding_attention"] * 8, "use_sliding_window": True}),
    ("num_attention_heads", {"num_attention_heads": 8}),
]


@pytest.mark.parametrize(("key", "change"), CHANGES)
def test_what_changes_an_answer_is_refused_with_both_values(
    tmp_path: Path, key: str, change: dict[str, Any]
) -> None:
    expert = _copy(tmp_path, change)
    with pytest.raises(SpecError, match=rf"{key} is .* in .*base and .* in .*expert") as caught:
        check_mergeable(Checkpoint(BASE), [Checkpoint(expert)])
    assert "\n" not in str(caught.value)


def _copy(folder: Path, change: dict[str, Any]) -> Path:
    expert = folder / "expert"
    shutil.copytree(EXPERT, expert)
    content = json.loads((expert / "config.json").read_text()) | change
    (expert / "config.json").write_text(json.dumps(content))
    return expert


HARMLESS = {
    "_name_or_path": "elsewhere",
    "architectures": ["Qwen3Model"],
    "attention_dropout": 0.1,
    "bos_token_id": 5,
    "dtype": "bfloat16",
    "eos_token_id": [2, 5],
    "initializer_range": 0.5,
    "max_position_embeddings": 4096,
    "max_window_layers": 3,
    "transformers_version": "4.51.0",
    "unsloth_version": "2025.1",
    "use_cache": False,
}


@pytest.mark.parametrize("key", HARMLESS)
def test_what_changes_no_answer_is_accepted(tmp_path: Path, key: str) -> None:
    check_mergeable(Checkpoint(BASE), [Checkpoint(_copy(tmp_path, {key: HARMLESS[key]}))])


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        (LlamaConfig(**SIZES), ["head_dim", "num_key_value_heads", "rope_parameters"]),
        (LlamaConfig(**SIZES), ["tie_word_embeddings", "hidden_act", "attention_bias"]),
        (MistralConfig(**SIZES), ["head_dim", "sliding_window"]),
        (Gemma2Config(**SIZES), ["tie_word_embeddings", "query_pre_attn_scalar"]),
        (Qwen2Config(**SIZES), ["layer_types", "max_window_layers", "use_sliding_window"]),
    ],
)
def test_a_default_left_out_equals_the_default_written_out(
    tmp_path: Path, config: Any, keys: list[str]
) -> None:
    base, expert = _pair(tmp_path, config, lambda c: [c.pop(key, None) for key in keys])
    check_same_forward(base, expert)
    check_same_forward(expert, base)
    assert config_hash(base) == config_hash(expert)


@pytest.mark.parametrize("key", ["rope_type", "type"])
def test_the_names_of_older_files_are_the_same_keys(tmp_path: Path, key: str) -> None:
    def older(content: dict[str, Any]) -> None:
        del content["rope_parameters"]
        content |= {"rope_theta": 500000.0, "torch_dtype": "bfloat16"}
        content["rope_scaling"] = {key: "linear", "factor": 2.0}

    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0}
    config = LlamaConfig(**SIZES, rope_parameters=rope)
    check_same_forward(*_pair(tmp_path, config, older))


def test_positions_matter_where_the_rotary_embedding_asks_for_them(tmp_path: Path) -> None:
    def longer(content: dict[str, Any]) -> None:
        content["max_position_embeddings"] = 256

    base, expert = _pair(tmp_path / "plain", LlamaConfig(**SIZES), longer)
    check_same_forward(base, expert)
    assert (positions(base), positions(expert)) == (128, 256)
    assert config_hash(base) != config_hash(expert)
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    config = LlamaConfig(**SIZES, rope_parameters=dynamic)
    with pytest.raises(SpecError, match=r"max_position_embeddings is 128 .* and 256 in"):
        check_same_forward(*_pair(tmp_path / "dynamic", config, longer))


@pytest.mark.parametrize("config", [LlamaConfig(**SIZES), Phi3Config(**SIZES, pad_token_id=0)])
def test_no_key_that_is_left_out_of_the_comparison_changes_the_logits(config: Any) -> None:
    """Every harmless key, set to something else, in a real forward pass."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = torch.arange(2, 18)[None]
    expected = model(tokens).logits
    others = {"attention_dropout": 0.5, "initializer_range": 0.5, "pretraining_tp": 2}
    others |= {"max_position_embeddings": 512, "bos_token_id": 7}
    changed = type(config)(**{**config.to_dict(), **others})
    same = AutoModelForCausalLM.from_config(changed).eval()
    same.load_state_dict(model.state_dict())
    assert computed_by(changed) == computed_by(config)
    assert torch.equal(same(tokens).logits, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_type": "no-such-model"}, "no-such-model.*install a version"),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}},
            "never run: choose a model",
        ),
        ({}, "model_type"),
    ],
)
def test_what_transformers_does_not_know_is_one_line(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(SpecError, match=message) as caught:
        load_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_stop_tokens_are_the_generation_configs_or_the_models(tmp_path: Path) -> None:
    assert stop_tokens(BASE) == {2}
    shutil.copy(BASE / "config.json", tmp_path)
    assert stop_tokens(tmp_path) == {2}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 7]}')
    assert stop_tokens(tmp_path) == {5, 7}
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(SpecError, match="must be valid JSON"):
        stop_tokens(tmp_path)
    for wrong in ("</s>", [[2]], True, 2.5, [2, -1]):
        content = json.dumps({"eos_token_id": wrong})
        (tmp_path / "generation_config.json").write_text(content)
        with pytest.raises(SpecError, match="must be a token's number, but eos_token_id of"):
            stop_tokens(tmp_path)


@pytest.mark.parametrize("generation", [None, "{}"])
def test_a_multimodal_models_own_stop_tokens_come_first(
    tmp_path: Path, generation: str | None
) -> None:
    config = config_of("Gemma 3, with vision")
    config.text_config.eos_token_id = 2
    for own, expected in ((None, {2}), ([1, 7], {1, 7})):
        config.eos_token_id = own
        config.save_pretrained(tmp_path)
        if generation is not None:
            (tmp_path / "generation_config.json").write_text(generation)
        assert stop_tokens(tmp_path) == expected


def test_a_configuration_that_comes_from_another_version_is_loaded(tmp_path: Path) -> None:
    _copy(tmp_path, {"transformers_version": "4.30.0"})
    assert AutoConfig.from_pretrained(tmp_path / "expert").num_hidden_layers == 8
