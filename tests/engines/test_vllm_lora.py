"""Adapters are merged inside the workers, from their own files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import vllm_on_cpu  # noqa: F401 - sets the environment, or skips
from backend_suite import LONG, PROMPTS, become
from mergefront.errors import EngineError
from mergefront.examples.demo import BASE
from mergefront.objectives.evaluation import Models
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.backends.vllm_backend import VllmBackend
from mergefront.objectives.merging import stream

_TARGETS = ("model.layers.0.self_attn.q_proj", "model.layers.3.mlp.down_proj")


@pytest.fixture
def models(tmp_path: Path) -> Models:
    directory = tmp_path / "adapter"
    directory.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    generator = torch.Generator().manual_seed(0)
    weights = load_file(BASE / "model.safetensors")
    tensors = {}
    for target in _TARGETS:
        out, width = weights[f"{target}.weight"].shape
        prefix = f"base_model.model.{target}"
        tensors[f"{prefix}.lora_A.weight"] = 0.3 * torch.randn(4, width, generator=generator)
        tensors[f"{prefix}.lora_B.weight"] = 0.3 * torch.randn(out, 4, generator=generator)
    save_file(tensors, directory / "adapter_model.safetensors")
    return Models(BASE, (directory,), "float32")


def test_an_adapter_answers_as_in_transformers(models: Models, tmp_path: Path) -> None:
    files = sorted(tmp_path.rglob("*"))
    backend, reference = VllmBackend(), TransformersBackend(device="cpu")
    backend.load(models)
    reference.load(models)
    answers = []
    for weight in (0.0, 1.0, 0.5):
        become(backend, weight)
        become(reference, weight)
        answers.append(backend.generate(PROMPTS, LONG))
        assert answers[-1] == reference.generate(PROMPTS, LONG)
    assert answers[0] != answers[1]
    assert sorted(tmp_path.rglob("*")) == files  # no merged checkpoint
    backend.close()


def test_an_adapter_that_is_not_merged_is_refused(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is transformers: vLLM has no engine of an adapter's own model."""
    worker = "mergefront.objectives.evaluation.backends.vllm_worker"

    def unmerged(recipe: Any, groups: Any, **others: Any) -> Any:
        return stream(recipe, {name: (0.0,) for name in groups}, **others)

    monkeypatch.setattr(f"{worker}.stream", unmerged)
    with pytest.raises(EngineError, match="below the best one in transformers"):
        VllmBackend().load(models)
