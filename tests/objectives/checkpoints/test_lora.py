"""LoRA experts against the plain formula."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from architectures import config_of, write_model
from optuna.trial import create_trial
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from hub import at_hub, serve_models
from mergefront.errors import SpecError
from mergefront.examples.demo import BASE
from mergefront.objectives.checkpoints import Checkpoint, LoraCheckpoint
from mergefront.objectives.checkpoints.identity import is_same_model
from mergefront.objectives.evaluation import Models
from mergefront.objectives.evaluation.backends.loading import load_expert
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import (
    MergeSettings,
    Recipe,
    check_loaded,
    plan_of,
    write_checkpoint,
)
from mergefront.study.first_trials import search_space
from mergefront.study.importance import compute_importance
from mergefront.study.readiness import differences
from mergefront.study.results.export import export_mergekit
from mergefront.study.spec.inputs import load_inputs
from small_study import write_spec

TARGETS = ("model.layers.0.self_attn.q_proj", "model.layers.3.mlp.down_proj")


def _write_adapter(directory: Path, targets: tuple[str, ...] = TARGETS, **changes: Any) -> Path:
    directory.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", **changes}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    generator = torch.Generator().manual_seed(0)
    weights = load_file(BASE / "model.safetensors")
    tensors = {}
    for target in targets:
        out, width = weights.get(f"{target}.weight", torch.empty(8, 8)).shape
        prefix = f"base_model.model.{target}"
        tensors[f"{prefix}.lora_A.weight"] = torch.randn(4, width, generator=generator)
        tensors[f"{prefix}.lora_B.weight"] = 0.1 * torch.randn(out, 4, generator=generator)
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


def test_adapters_are_the_same_if_their_files_are(tmp_path: Path) -> None:
    base = Checkpoint(BASE)
    first, copy = _write_adapter(tmp_path / "a"), _write_adapter(tmp_path / "b")
    other = _write_adapter(tmp_path / "c", lora_alpha=16)
    opened = [LoraCheckpoint(path, base) for path in (first, copy, other)]
    assert is_same_model(opened[0], opened[1])
    assert not is_same_model(opened[0], opened[2])
    assert not is_same_model(base, opened[0])


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return _write_adapter(tmp_path / "adapter")


def _expected(adapter: Path, scaling: float) -> Iterator[tuple[str, torch.Tensor]]:
    weights = load_file(BASE / "model.safetensors")
    matrices = load_file(adapter / "adapter_model.safetensors")
    for target in TARGETS:
        a = matrices[f"base_model.model.{target}.lora_A.weight"]
        b = matrices[f"base_model.model.{target}.lora_B.weight"]
        yield f"{target}.weight", weights[f"{target}.weight"] + scaling * (b @ a)


@pytest.mark.parametrize(("rslora", "scaling"), [(False, 2.0), (True, 4.0)])  # 8 / 4, 8 / 2
def test_changed_tensors_are_base_plus_scaled_product(
    tmp_path: Path, rslora: bool, scaling: float
) -> None:
    adapter = _write_adapter(tmp_path / "a", use_rslora=rslora)
    checkpoint = LoraCheckpoint(adapter, Checkpoint(BASE))
    assert checkpoint.changed == sorted(f"{target}.weight" for target in TARGETS)
    for name, expected in _expected(adapter, scaling):
        torch.testing.assert_close(checkpoint.tensor(name).load(), expected)
        part = checkpoint.tensor(name).read(37, 201)  # crosses rows of 64
        torch.testing.assert_close(part, expected.flatten()[37:201])


@pytest.mark.parametrize("granularity", ["layer", "heads"])
def test_in_place_and_exported_candidates_agree(granularity: Any, tmp_path: Path) -> None:
    adapter = _write_adapter(tmp_path / "a", (*TARGETS, "model.layers.1.self_attn.o_proj"))
    base = Checkpoint(BASE)
    expert = LoraCheckpoint(adapter, base)
    plan = plan_of(base, MergeSettings(granularity=granularity))
    weights = {group: (k / len(plan.groups),) for k, group in enumerate(plan.groups, 1)}
    write_checkpoint(Recipe(base, [expert], plan, torch.float32), weights, tmp_path / "out")
    checksums = []
    for models, groups in (
        (Models(BASE, (adapter,), "float32", plan.settings), weights),
        (Models(tmp_path / "out", (BASE,), "float32"), None),
    ):
        backend = TransformersBackend(device="cpu")
        backend.load(models)
        start = backend.plan.group_weights(backend.plan.uniform(0.0))
        backend.apply(start if groups is None else groups)
        checksums.append(backend.checksum())
    assert checksums[0] == checksums[1]


def test_a_spec_may_name_an_adapter(adapter: Path, tmp_path: Path) -> None:
    models = {"base": str(BASE), "experts": [str(adapter)], "dtype": "float32"}
    inputs = load_inputs(write_spec(tmp_path, models=models))
    importance = compute_importance(inputs)
    assert importance is not None
    moved = {name for name, value in importance.items() if value > 0}
    assert moved == {"layer_000", "layer_003"}
    before = inputs.fingerprint()["models.experts"]
    settings = json.loads((adapter / "adapter_config.json").read_text()) | {"lora_alpha": 16}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    assert load_inputs(tmp_path / "spec.yaml").fingerprint()["models.experts"] != before


def test_what_an_adapter_brings_along_is_told(adapter: Path, tmp_path: Path) -> None:
    """As trainers save it: with a tokenizer and a template of its own, and its base's name."""
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "somebody/another-model"
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    tokenizer: Any = AutoTokenizer.from_pretrained(BASE)
    tokenizer.add_tokens(["<new>"])
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    tokenizer.save_pretrained(adapter)
    models = {"base": str(BASE), "experts": [str(adapter)], "dtype": "float32"}
    told = differences(load_inputs(write_spec(tmp_path, models=models)))
    assert "chat templates differ; used: base (models.chat_template)" in told
    assert told[-2:] == [
        "trained on: somebody/another-model (expert, an adapter); added to: the base",
        "vocabulary: '<new>' (expert, an adapter); used: the base's",
    ]
    settings["base_model_name_or_path"] = "./somewhere/base/"
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    told = differences(load_inputs(tmp_path / "spec.yaml"))
    assert not any("trained on" in line for line in told)


@pytest.mark.parametrize("name", ["adapter", "a+b@c"])
def test_mergekit_is_told_the_adapters_base(name: str, tmp_path: Path) -> None:
    adapter, base = _write_adapter(tmp_path / "adapter"), tmp_path / name / "base"
    shutil.copytree(BASE, base)
    models = {"base": str(base), "experts": [str(adapter)], "dtype": "float32"}
    inputs = load_inputs(write_spec(tmp_path, models=models))
    space = search_space(inputs.spec, inputs.plan)
    trial = create_trial(params=inputs.plan.uniform(0.5), distributions=space, value=0.0)
    content = yaml.safe_load(export_mergekit(inputs, trial, tmp_path / "out").read_text())
    ours, theirs = (each["model"] for each in content["models"])
    assert theirs == {"model": {"path": str(base)}, "lora": {"path": str(adapter)}}
    assert ours == ({"model": {"path": str(base)}} if "@" in name else str(base))


def test_an_adapter_of_the_hub_is_fetched_whole(adapter: Path, tmp_path: Path) -> None:
    models = {"base": "team/base", "experts": ["team/adapter"], "dtype": "float32"}
    spec = write_spec(tmp_path, models=models)
    with serve_models({"team/base": BASE, "team/adapter": adapter}) as hub:
        result = at_hub(hub, tmp_path / "cache", "run", spec, "--dry-run")
    assert result.returncode == 0, result.stderr
    weights = adapter / "adapter_model.safetensors"
    assert hub.served["adapter/adapter_model.safetensors"] == weights.stat().st_size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use_dora": True}, "use_dora = False, but .* has True"),
        ({"bias": "all"}, "bias = 'none'"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"targets": ("model.layers.99.mlp.up_proj",)}, "layers.99.mlp.up_proj.weight' of"),
    ],
)
def test_adapters_that_mean_something_else_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    adapter = _write_adapter(tmp_path / "a", **changes)
    with pytest.raises(SpecError, match=message):
        LoraCheckpoint(adapter, Checkpoint(BASE))


def _save(directory: Path, tensors: dict[str, torch.Tensor], **settings: Any) -> Path:
    directory.mkdir()
    content = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **settings}
    (directory / "adapter_config.json").write_text(json.dumps(content))
    named = {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}
    save_file(named, directory / "adapter_model.safetensors")
    return directory


_QUERY = "model.layers.0.self_attn.q_proj"
_EMBEDDINGS = "model.embed_tokens"


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _pair(module: str, out: int = 128, width: int = 64, rank: int = 4) -> dict[str, torch.Tensor]:
    return {
        f"{module}.lora_A.weight": _random(rank, width),
        f"{module}.lora_B.weight": _random(out, rank),
    }


_HALF = {f"{_QUERY}.lora_B.weight": _random(128, 4)}


@pytest.mark.parametrize(
    ("tensors", "settings", "message"),
    [
        ({f"{_QUERY}.lora_magnitude_vector": _random(64)}, {}, "lora_magnitude_vector"),
        ({f"{_EMBEDDINGS}.token_adapter.trainable_tokens_delta": _random(2, 64)}, {}, "delta"),
        ({f"{_QUERY}.lora_B.bias": _random(128)}, {}, r"q_proj\.bias"),
        ({"model.norm.weight": _random(65)}, {}, r"\(65,\), the base's \(64,\)"),
        (_pair(_QUERY, width=63), {}, r"\(128, 63\), the base's \(128, 64\)"),
        (_pair(_QUERY, rank=3), {}, "r = 4"),
        ({f"{_QUERY}.lora_A.weight": _random(4, 64)}, {}, "come in pairs"),
        ({f"{_QUERY}.lora_B.weight": _random(64, 4)}, {}, "not understood"),
        (_pair("model.layers.0.mlp.experts"), {}, "no such tensor"),
        (_pair(_QUERY), {"init_lora_weights": "pissa"}, "init_lora_weights = True"),
        (_pair(_QUERY), {"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        (_pair(_QUERY), {"target_parameters": ["mlp.experts"]}, "sets target_parameters"),
        (_pair(_QUERY), {"trainable_token_indices": [1]}, "sets trainable_token_indices"),
        (_pair(_QUERY), {"layer_replication": [[0, 4]]}, "sets layer_replication"),
        (_pair(_QUERY), {"an_option_of_tomorrow": "on"}, "sets an_option_of_tomorrow = 'on'"),
        (_pair(_QUERY), {"r": 0}, "r and lora_alpha above 0, but .* has 0 and 8. Correct"),
        (_pair(_QUERY), {"lora_alpha": None}, "has 4 and None"),
        (_pair(_QUERY), {"lora_alpha": 0}, "has 4 and 0"),
        (_pair(_QUERY), {"lora_alpha": "8"}, "has 4 and '8'"),
        ({}, {"r": 4}, "must change the base, but .* holds no tensor"),
        (_pair(_QUERY) | {f"{_QUERY}.lora_B.weight": torch.zeros(128, 4)}, {"r": 4}, "are 0: it"),
        ({f"{_QUERY}.lora_A.weight": _random(4, 64) / 0, **_HALF}, {}, "q_proj.* hold NaN or inf"),
        (_pair(_QUERY) | {f"{_QUERY}.lora_B.weight": _random(128, 4) * math.nan}, {}, "hold NaN"),
        (
            {name: tensor.to(torch.int8) for name, tensor in _pair(_QUERY).items()},
            {},
            "floating-point numbers, but .*q_proj.lora_A.weight' is torch.int8",
        ),
    ],
)
def test_what_an_adapter_holds_is_added_or_refused_by_name(
    tmp_path: Path, tensors: dict[str, torch.Tensor], settings: dict[str, Any], message: str
) -> None:
    adapter = _save(tmp_path / "a", {**_pair("model.layers.1.self_attn.q_proj"), **tensors})
    if settings:
        adapter = _save(tmp_path / "b", tensors, **settings)
    with pytest.raises(SpecError, match=message):
        LoraCheckpoint(adapter, Checkpoint(BASE))


def test_options_of_training_alone_are_accepted(tmp_path: Path) -> None:
    settings = {
        "task_type": "CAUSAL_LM",
        "target_modules": ["q_proj"],
        "lora_dropout": 0.1,
        "init_lora_weights": "gaussian",
        "layers_to_transform": [0],
        "use_dora": False,
        "loftq_config": {},
        "corda_config": None,
        "peft_version": "0.21.2",
    }
    adapter = _save(tmp_path / "a", _pair(_QUERY), **settings)
    assert LoraCheckpoint(adapter, Checkpoint(BASE)).changed == [f"{_QUERY}.weight"]


def _small(name: str, directory: Path) -> Checkpoint:
    write_model(config_of(name), torch.float32, 1, directory)
    return Checkpoint(directory)


def _check_loaded(adapter: Path, base: Checkpoint) -> dict[str, torch.Tensor]:
    """Load an adapter as a search does; return its tensors as the files give them."""
    live = load_expert(adapter, base.directory, "float32", "cpu")
    opened = LoraCheckpoint(adapter, base)
    check_loaded(live, opened, base)
    return {name: opened.tensor(name).load() for name in opened.changed}


def test_embeddings_biases_and_whole_tensors_are_added(tmp_path: Path) -> None:
    base = _small("Qwen 2", tmp_path / "base")  # 64 tokens, width 32, biases in the attention
    tensors = {
        f"{_EMBEDDINGS}.lora_embedding_A": _random(4, 64),
        f"{_EMBEDDINGS}.lora_embedding_B": _random(32, 4),
        **_pair(_QUERY, 32, 32),
        f"{_QUERY}.lora_B.bias": _random(32),
        "lm_head.weight": _random(64, 32),
    }
    changed = _check_loaded(_save(tmp_path / "a", tensors, lora_bias=True), base)
    expected = {
        f"{_EMBEDDINGS}.weight": (_random(32, 4) @ _random(4, 64)).T * 2,
        f"{_QUERY}.weight": _random(32, 4) @ _random(4, 32) * 2,
        f"{_QUERY}.bias": _random(32) * 2,
    }
    for name, delta in expected.items():
        torch.testing.assert_close(changed[name], base.tensor(name).load() + delta)
    assert torch.equal(changed["lm_head.weight"], _random(64, 32))


def test_tied_embeddings_stay_one_matrix(tmp_path: Path) -> None:
    base = _small("Llama 3, tied", tmp_path / "base")
    saved = _random(64, 32)
    tensors = {
        **_pair(_QUERY, 32, 32),
        f"{_EMBEDDINGS}.weight": saved,
        "lm_head.weight": saved.clone(),
    }
    changed = _check_loaded(_save(tmp_path / "both", tensors), base)
    assert torch.equal(changed[f"{_EMBEDDINGS}.weight"], saved)
    other = _save(tmp_path / "two", tensors | {"lm_head.weight": saved + 1})
    with pytest.raises(SpecError, match="there it is the embeddings"):
        LoraCheckpoint(other, base)
    halves = {
        f"{_EMBEDDINGS}.lora_embedding_A": _random(4, 64),
        f"{_EMBEDDINGS}.lora_embedding_B": _random(32, 4),
    }
    with pytest.raises(SpecError, match="at the input alone"):
        LoraCheckpoint(_save(tmp_path / "input", halves), base)
    head = _save(tmp_path / "output", _pair("lm_head", 64, 32))
    with pytest.raises(SpecError, match="not by itself"):
        LoraCheckpoint(head, base)
    path = base.directory / "model.safetensors"
    stored = load_file(path)
    save_file({**stored, "lm_head.weight": stored[f"{_EMBEDDINGS}.weight"].clone()}, path)
    with pytest.raises(SpecError, match=r"'lm_head.weight' of .* at the output alone"):
        LoraCheckpoint(head, Checkpoint(base.directory))


def test_adapters_of_single_experts_are_added_to_the_fused_ones(tmp_path: Path) -> None:
    base = _small("Qwen 3 MoE", tmp_path / "base")
    module = "model.layers.1.mlp.experts.2.gate_proj"
    changed = _check_loaded(_save(tmp_path / "a", _pair(module, 16, 32)), base)
    assert list(changed) == [f"{module}.weight"]
