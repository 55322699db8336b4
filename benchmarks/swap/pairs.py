"""Pairs of random models with the shapes of language models, to swap between."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.evaluation import Models

_COMMON: dict[str, Any] = {"head_dim": 128, "num_key_value_heads": 8, "tie_word_embeddings": True}
# The demo's tokenizer asks the questions; what it does not know of a vocabulary is never read.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": (
        "qwen3",
        {
            "hidden_size": 256,
            "intermediate_size": 768,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "vocab_size": 4_096,
            "max_position_embeddings": 512,
        },
    ),
    # Qwen3-0.6B with a smaller vocabulary
    "0.5b": (
        "qwen3",
        {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "vocab_size": 32_000,
            "max_position_embeddings": 512,
        },
    ),
    # Sixteen small experts in each of twelve layers
    "moe": (
        "qwen3_moe",
        {
            "hidden_size": 768,
            "intermediate_size": 1536,
            "moe_intermediate_size": 384,
            "num_experts": 16,
            "num_experts_per_tok": 4,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "decoder_sparse_step": 1,
            "norm_topk_prob": True,
            "vocab_size": 32_000,
            "max_position_embeddings": 512,
        },
    ),
    # Qwen3-4B
    "4b": (
        "qwen3",
        {
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "vocab_size": 151_936,
            "max_position_embeddings": 4096,
        },
    ),
}


def make_pair(shape: str, folder: Path) -> Models:
    """Return the demo's models, or write two random ones of a shape.

    Args:
        shape: `demo`, or one of `SHAPES`.
        folder: For the random ones.
    """
    if shape == "demo":
        return Models(BASE, (EXPERT,), "float32")
    base, expert = (_random(folder / name, shape, seed) for seed, name in enumerate("ab"))
    return Models(base, (expert,), "bfloat16")


def _random(directory: Path, shape: str, seed: int) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model_type, particular = SHAPES[shape]
    settings = {**_COMMON, **particular, "eos_token_id": tokenizer.eos_token_id}
    config = AutoConfig.for_model(model_type, **settings)
    torch.manual_seed(seed)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.cpu().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def n_parameters(models: Models) -> int:
    """Return the number of weights of one model."""
    shapes = Checkpoint(models.base).shapes().values()
    return sum(int(torch.Size(shape).numel()) for shape in shapes)
