"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): train one, write it in PEFT's format."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

RANK, ALPHA = 8, 16
WEIGHTS = "adapter_model.safetensors"
_FILE_NAME = "base_model.model.{}.lora_{}.weight"


class LoraLinear(nn.Module):
    """A frozen linear map plus `ALPHA / RANK * B A`; `B` starts at 0."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen
        self.a = nn.Parameter(torch.empty(RANK, frozen.in_features))
        self.b = nn.Parameter(torch.zeros(frozen.out_features, RANK))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Map `... x in` to `... x out`."""
        low = functional.linear(functional.linear(x, self.a), self.b)
        plain: Tensor = self.frozen(x)
        return plain + ALPHA / RANK * low


def add_adapter(model: Any, layers: Sequence[int]) -> dict[str, LoraLinear]:
    """Freeze a model and give every linear map of some layers an adapter.

    Returns:
        The adapters by the names of what they adapt.
    """
    model.requires_grad_(False)
    found: dict[str, LoraLinear] = {}
    for index in layers:
        layer = model.model.layers[index]
        linears = [(n, m) for n, m in layer.named_modules() if isinstance(m, nn.Linear)]
        for name, module in linears:
            parent, _, leaf = name.rpartition(".")
            adapter = LoraLinear(module)
            setattr(layer.get_submodule(parent), leaf, adapter)
            found[f"model.layers.{index}.{name}"] = adapter
    return found


def fold(model: Any, directory: Path) -> None:
    """Add a saved adapter to a model's weights."""
    tensors = load_file(directory / WEIGHTS)
    names = {name.removesuffix(".lora_A.weight") for name in tensors if ".lora_A." in name}
    for name in sorted(names):
        a, b = (tensors[f"{name}.lora_{part}.weight"].float() for part in "AB")
        weight = model.get_parameter(name.removeprefix("base_model.model.") + ".weight")
        with torch.no_grad():
            weight += ALPHA / RANK * (b @ a)


def save_adapter(
    adapters: dict[str, LoraLinear], directory: Path, beside: Path | None = None
) -> None:
    """Write an adapter as PEFT would, in bfloat16.

    Args:
        adapters: What was trained.
        directory: Is made.
        beside: A saved adapter of other layers, which becomes a part of this one.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {} if beside is None else load_file(beside / WEIGHTS)
    for name, adapter in adapters.items():
        tensors[_FILE_NAME.format(name, "A")] = adapter.a.detach().bfloat16().contiguous()
        tensors[_FILE_NAME.format(name, "B")] = adapter.b.detach().bfloat16().contiguous()
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    parts = [name.removeprefix("base_model.model.").split(".") for name in tensors]
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": RANK,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({part[-3] for part in parts}),
        "layers_to_transform": sorted({int(part[2]) for part in parts}),
    }
    (directory / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")


@dataclass(frozen=True)
class Batch:
    """Texts of similar length, padded on the right: nothing attends to what follows it.

    Args:
        ids: `n x length`.
        learned: Which positions are to be predicted, `n x length`.
    """

    ids: Tensor
    learned: Tensor


def batches(
    pairs: Sequence[tuple[list[int], list[int]]], size: int, order: Sequence[int]
) -> Iterator[Batch]:
    """Yield batches of (prompt, answer) token pairs; `order` shuffles them."""
    by_length = sorted(range(len(pairs)), key=lambda i: sum(map(len, pairs[i])))
    chunks = [by_length[i : i + size] for i in range(0, len(pairs), size)]
    for chosen in order:
        chunk = [pairs[i] for i in chunks[chosen]]
        longest = max(len(prompt) + len(answer) for prompt, answer in chunk)
        ids = torch.zeros(len(chunk), longest, dtype=torch.long)
        learned = torch.zeros(len(chunk), longest, dtype=torch.bool)
        for row, (prompt, answer) in enumerate(chunk):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor(prompt + answer)
            learned[row, len(prompt) : end] = True
        yield Batch(ids, learned)


def loss_of(model: Any, batch: Batch) -> Tensor:
    """Return the mean cross entropy of the answers' tokens."""
    hidden = model.model(input_ids=batch.ids[:, :-1], use_cache=False).last_hidden_state
    learned = batch.learned[:, 1:]
    logits = model.lm_head(hidden[learned])
    return functional.cross_entropy(logits, batch.ids[:, 1:][learned])
