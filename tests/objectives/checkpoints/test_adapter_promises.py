"""What an adapter's configuration names must be in its file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import config_of, write_model
from safetensors.torch import load_file, save_file

from mergefront.errors import SpecError
from mergefront.examples.demo import BASE
from mergefront.objectives.checkpoints import Checkpoint, LoraCheckpoint

QUERIES = tuple(f"model.layers.{i}.self_attn.q_proj" for i in range(8))


def _write(
    directory: Path,
    modules: tuple[str, ...],
    whole: dict[str, torch.Tensor] | None = None,
    base: Path = BASE,
    **changes: Any,
) -> LoraCheckpoint:
    directory.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(settings | changes))
    weights, tensors = load_file(base / "model.safetensors"), dict(whole or {})
    for module in modules:
        out, width = weights[f"{module}.weight"].shape
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.ones(4, width)
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.ones(out, 4)
    save_file(tensors, directory / "adapter_model.safetensors")
    return LoraCheckpoint(directory, Checkpoint(base))


@pytest.mark.parametrize(
    ("modules", "settings", "missing"),
    [
        (QUERIES, {"modules_to_save": ["lm_head"]}, r"'lm_head\.weight' .*'modules_to_save'"),
        (QUERIES, {"target_modules": ["q_proj", "o_proj"]}, r"layers\.0\.self_attn\.o_proj"),
        (QUERIES[:3], {}, r"layers\.3\.self_attn\.q_proj\.weight' .*'target_modules'"),
        (QUERIES[:1], {"layers_to_transform": [0, 5]}, r"layers\.5\.self_attn"),
        (QUERIES, {"target_modules": r".*\.[qo]_proj"}, r"layers\.0\.self_attn\.o_proj"),
        (QUERIES, {"target_modules": "all-linear"}, r"layers\.0\.mlp"),
        (QUERIES, {"target_modules": "*"}, "regular expression, but .* Correct"),
    ],
)
def test_an_adapter_that_lacks_what_it_names_is_refused(
    tmp_path: Path, modules: tuple[str, ...], settings: dict[str, Any], missing: str
) -> None:
    with pytest.raises(SpecError, match=missing):
        _write(tmp_path / "a", modules, **settings)


@pytest.mark.parametrize(
    ("modules", "settings"),
    [
        (QUERIES, {"target_modules": ["q_proj", "query_key_value"]}),  # a list for many families
        (QUERIES, {"modules_to_save": ["classifier", "score"]}),  # PEFT's own for other tasks
        (QUERIES[:2], {"layers_to_transform": [0, 1]}),
        (QUERIES[2:3], {"layers_to_transform": 2, "layers_pattern": "layers"}),
        (QUERIES[:2], {"exclude_modules": r".*\.[2-7]\..*"}),
        (QUERIES[:7], {"exclude_modules": ["layers.7.self_attn.q_proj"]}),
        (QUERIES[:2], {"target_modules": r"model\.layers\.[01]\.self_attn\.q_proj"}),
        (QUERIES[:1], {"target_modules": [QUERIES[0]], "layers_to_transform": [5]}),
    ],
)
def test_what_it_does_not_name_may_be_missing(
    tmp_path: Path, modules: tuple[str, ...], settings: dict[str, Any]
) -> None:
    opened = _write(tmp_path / "a", modules, **settings)
    assert opened.changed == sorted(f"{module}.weight" for module in modules)


@pytest.mark.parametrize("name", ["lm_head.weight", "lm_head.modules_to_save.weight"])
def test_modules_that_were_trained_whole_are_found_by_both_names(
    tmp_path: Path, name: str
) -> None:
    head = {f"base_model.model.{name}": torch.ones(48, 64)}
    opened = _write(tmp_path / "a", QUERIES, head, modules_to_save=["lm_head"])
    assert "lm_head.weight" in opened.changed


@pytest.mark.parametrize("targets", [["q_proj", "gate_proj"], r".*\.(q_proj|gate_proj)"])
def test_experts_that_are_run_as_one_need_no_adapters_unless_others_have_them(
    tmp_path: Path, targets: Any
) -> None:
    base = tmp_path / "base"
    write_model(config_of("Qwen 3 MoE"), torch.float32, 1, base)
    names = [name.removesuffix(".weight") for name in load_file(base / "model.safetensors")]
    queries = tuple(name for name in names if name.endswith("q_proj"))
    experts = tuple(name for name in names if name.endswith("gate_proj"))
    for k, modules in enumerate((queries, queries + experts)):
        opened = _write(tmp_path / str(k), modules, base=base, target_modules=targets)
        assert len(opened.changed) == len(modules)
    with pytest.raises(SpecError, match=f"nothing for '{experts[-1]}"):
        _write(tmp_path / "less", queries + experts[:-1], base=base, target_modules=targets)
