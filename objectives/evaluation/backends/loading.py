"""Load transformers models: safetensors only, no code from checkpoints."""

from pathlib import Path
from typing import Any

import torch

from ...checkpoints import Checkpoint, LoraCheckpoint, is_adapter, tensor_table
from ...checkpoints.tensors import model_class, parsed_config


def load_model(directory: Path, dtype: str, device: str) -> Any:
    """Return a language model that is not trained, whole if it is multimodal."""
    from transformers import AutoModelForCausalLM

    config = parsed_config(directory)
    builder = AutoModelForCausalLM if config is None else model_class(config)
    model: Any = builder.from_pretrained(
        directory, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True
    )
    return model.to(device).eval().requires_grad_(False)


def load_expert(directory: Path, base: Path, dtype: str, device: str) -> Any:
    """Return an expert; an adapter is added to the base."""
    if not is_adapter(directory):
        return load_model(directory, dtype, device)
    expert = load_model(base, dtype, device)
    opened = Checkpoint(base)
    adapter = LoraCheckpoint(directory, opened)
    changed, live = set(adapter.changed), expert.state_dict()
    with torch.no_grad():
        for link in tensor_table(opened).links:
            if not changed.isdisjoint(link.sources):
                made = link.convert(lambda name: adapter.tensor(name).load(), expert)
                for name, values in made.items():
                    # Loaded weights are pages of the file: never written to.
                    module, _, leaf = name.rpartition(".")
                    owner = expert.get_submodule(module)
                    getattr(owner, leaf).data = values.to(device, live[name].dtype)
    return expert


def default_device() -> str:
    """Return the first GPU, or the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
