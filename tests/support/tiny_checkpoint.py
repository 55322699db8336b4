"""Checkpoints of a few numbers, for hand calculations."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from mergefront.objectives.checkpoints import Checkpoint


def write_checkpoint(directory: Path, tensors: dict[str, list[float]]) -> Checkpoint:
    """Write vectors as tensors of layers, and open the checkpoint.

    Args:
        directory: To create.
        tensors: `0.mlp.up_proj` -> numbers.
    """
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps({"model_type": "test"}))
    named = {f"model.layers.{name}.weight": torch.tensor(v) for name, v in tensors.items()}
    save_file(named, directory / "model.safetensors")
    return Checkpoint(directory)
