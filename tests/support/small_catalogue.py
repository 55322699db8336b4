"""Small catalogues: checkpoints around the demo pair, good ones and bad ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from mergefront.examples.demo import BASE, EXPERT

WEIGHTS = "model.safetensors"


def write_model(
    folder: Path, change: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor
) -> Path:
    """Write the demo's base with changed tensors."""
    shutil.copytree(BASE, folder)
    tensors = {n: change(n, t).contiguous() for n, t in load_file(BASE / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    return folder


def write_sibling(folder: Path, level: float, seed: int) -> Path:
    """Write a sibling of the demo's expert: a share of its task vector, and some noise."""
    expert = load_file(EXPERT / WEIGHTS)
    generator = torch.manual_seed(seed)

    def change(name: str, tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=generator)
        return tensor + level * (expert[name] - tensor) + 0.02 * tensor.std() * noise

    return write_model(folder, change)


def write_adapter(folder: Path, seed: int, **settings: Any) -> Path:
    """Write an adapter of the queries of the demo's base, in PEFT's format."""
    folder.mkdir()
    content = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(content | settings))
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in load_file(BASE / WEIGHTS).items():
        if name.endswith("q_proj.weight"):
            module = f"base_model.model.{name.removesuffix('.weight')}"
            out, width = tensor.shape
            tensors[f"{module}.lora_A.weight"] = torch.randn(4, width, generator=generator)
            tensors[f"{module}.lora_B.weight"] = 0.1 * torch.randn(out, 4, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def write_catalogue(folder: Path, n_models: int = 5, **changes: Any) -> Path:
    """Write siblings `m0`, `m1`, ... with the demo's base as ancestor, and the catalogue."""
    for i in range(n_models):
        write_sibling(folder / f"m{i}", 0.15 + 0.2 * i, i)
    content: dict[str, Any] = {
        "dtype": "float32",
        "ancestor": str(BASE),
        "models": {f"m{i}": f"m{i}" for i in range(n_models)},
    }
    path = folder / "catalogue.yaml"
    path.write_text(yaml.safe_dump({**content, **changes}))
    return path


def change_config(folder: Path, **changes: Any) -> None:
    """Change a model's configuration."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
