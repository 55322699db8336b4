"""A base and two experts with the shape of Qwen3-0.6B and random weights."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.merging import MergePlan, MergeSettings, Recipe

SHARDS = [f"model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
}


def make_models(work: Path) -> None:
    """Write the three models once."""
    if (work / "two" / "config.json").exists():
        return
    shapes = _shapes()
    generator = torch.Generator().manual_seed(0)
    for name in ("base", "one", "two"):
        (work / name).mkdir(parents=True, exist_ok=True)
    layout = _layout(shapes)
    for file in SHARDS:
        names = [name for name, where in layout.items() if where == file]
        base = {n: 0.02 * torch.randn(shapes[n], generator=generator) for n in names}
        _save(base, work / "base" / file)
        for model in ("one", "two"):
            moved = {
                n: t + 0.002 * torch.randn(t.shape, generator=generator) for n, t in base.items()
            }
            _save(moved, work / model / file)
    index = json.dumps({"metadata": {}, "weight_map": layout})
    for name in ("base", "one", "two"):
        (work / name / "model.safetensors.index.json").write_text(index)
        (work / name / "config.json").write_text(json.dumps(CONFIG))


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({n: t.bfloat16() for n, t in tensors.items()}, path, metadata={"format": "pt"})


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (151936, 1024)}
    for i in range(28):
        layer = f"model.layers.{i}."
        shapes |= {
            f"{layer}self_attn.q_proj.weight": (2048, 1024),
            f"{layer}self_attn.k_proj.weight": (1024, 1024),
            f"{layer}self_attn.v_proj.weight": (1024, 1024),
            f"{layer}self_attn.o_proj.weight": (1024, 2048),
            f"{layer}self_attn.q_norm.weight": (128,),
            f"{layer}self_attn.k_norm.weight": (128,),
            f"{layer}mlp.gate_proj.weight": (3072, 1024),
            f"{layer}mlp.up_proj.weight": (3072, 1024),
            f"{layer}mlp.down_proj.weight": (1024, 3072),
            f"{layer}input_layernorm.weight": (1024,),
            f"{layer}post_attention_layernorm.weight": (1024,),
        }
    return shapes | {"model.norm.weight": (1024,)}


def _layout(shapes: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Fill three shards evenly, in order."""
    total = sum(torch.Size(shape).numel() for shape in shapes.values())
    layout, filled = {}, 0
    for name, shape in shapes.items():
        layout[name] = SHARDS[min(2, 3 * filled // total)]
        filled += torch.Size(shape).numel()
    return layout


def recipe(work: Path, n_experts: int, settings: MergeSettings) -> Recipe:
    """Return a merge of base and experts in bfloat16."""
    base = Checkpoint(work / "base")
    experts = [Checkpoint(work / name) for name in ("one", "two")[:n_experts]]
    shutil.rmtree(work / "out", ignore_errors=True)
    return Recipe(base, experts, MergePlan(base.layout, settings, tied=True), torch.bfloat16)


def load_modules(work: Path, n_experts: int) -> list[nn.Module]:
    """Return base and experts as transformers loads them."""
    from transformers import AutoModelForCausalLM

    return [
        AutoModelForCausalLM.from_pretrained(work / name, dtype=torch.bfloat16)
        for name in ("base", "one", "two")[: n_experts + 1]
    ]
