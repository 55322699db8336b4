"""LoRA experts against the plain formula."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hub import at_hub, serve_models
from mergefront.errors import SpecError
from mergefront.examples.demo import BASE
from mergefront.objectives.checkpoints import Checkpoint, LoraCheckpoint
from mergefront.objectives.evaluation import Models
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import MergePlan, MergeSettings, Recipe, write_checkpoint
from mergefront.study.importance import compute_importance
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


def test_in_place_and_exported_candidates_agree(adapter: Path, tmp_path: Path) -> None:
    base = Checkpoint(BASE)
    expert = LoraCheckpoint(adapter, base)
    plan = MergePlan(base.layout, MergeSettings())
    groups = plan.group_weights(plan.uniform(0.3))
    write_checkpoint(Recipe(base, [expert], plan, torch.float32), groups, tmp_path / "out")
    checksums = []
    for models, weight in (
        (Models(BASE, (adapter,), "float32"), 0.3),
        (Models(tmp_path / "out", (BASE,), "float32"), 0.0),
    ):
        backend = TransformersBackend(device="cpu")
        backend.load(models)
        backend.apply(plan.group_weights(plan.uniform(weight)))
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
