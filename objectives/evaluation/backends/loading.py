"""Load transformers models: safetensors only, no code from checkpoints."""

from pathlib import Path
from typing import Any

import torch

from ...checkpoints import Checkpoint, LoraCheckpoint, is_adapter


def load_model(directory: Path, dtype: str, device: str) -> Any:
    """Return a causal language model that is not trained."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        directory, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
    )
    return model.to(device).eval().requires_grad_(False)


def load_expert(directory: Path, base: Path, dtype: str, device: str) -> Any:
    """Return an expert; an adapter is added to the base."""
    if not is_adapter(directory):
        return load_model(directory, dtype, device)
    expert = load_model(base, dtype, device)
    adapter = LoraCheckpoint(directory, Checkpoint(base))
    for name in adapter.changed:
        values = adapter.tensor(name).load().to(device, getattr(torch, dtype))
        expert.get_parameter(name).data = values
    return expert


def default_device() -> str:
    """Return the first GPU, or the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
