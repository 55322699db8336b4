"""Load transformers models: safetensors only, no code from checkpoints."""

from pathlib import Path
from typing import Any

import torch

from ...checkpoints import Checkpoint, LoraCheckpoint, is_adapter, open_expert, tensor_table
from ...checkpoints.tensors import PaddedCheckpoint, model_class, parsed_config


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
    """Return an expert with the base's tensors: an adapter is added to it, padding cut or filled.

    Args:
        directory: The expert's.
        base: The base's directory.
        dtype: Name of the torch dtype.
        device: A torch device.
    """
    opened = Checkpoint(base)
    expert = open_expert(directory, opened)
    model = load_model(base if is_adapter(directory) else directory, dtype, device)
    if isinstance(expert, LoraCheckpoint | PaddedCheckpoint):
        _overwrite(model, expert, opened)
    return model


def _overwrite(model: Any, expert: LoraCheckpoint | PaddedCheckpoint, base: Checkpoint) -> None:
    """Give a loaded model the tensors that are not as they are in its files."""
    changed, live = set(expert.changed), model.state_dict()
    with torch.no_grad():
        for link in tensor_table(base).links:
            if not changed.isdisjoint(link.sources):
                made = link.convert(lambda name: expert.tensor(name).load(), model)
                for name, values in made.items():
                    # Loaded weights are pages of the file: never written to.
                    module, _, leaf = name.rpartition(".")
                    owner, old = model.get_submodule(module), live[name]
                    getattr(owner, leaf).data = values.to(old.device, old.dtype)


def default_device() -> str:
    """Return the first GPU, or the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"
