"""Pairs of random models of a few thousand weights, in the kinds of architectures that differ.

Their answers mean nothing; they show whether two engines hold the same model.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
)

from mergefront.examples.demo import BASE
from mergefront.objectives.evaluation import Models
from mergefront.objectives.merging import MergeSettings

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 48,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "tie_word_embeddings": False,
}
_EXPERTS: dict[str, Any] = {
    "moe_intermediate_size": 64,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 64,
    "v_head_dim": 32,
    "head_dim": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    **_EXPERTS,
}

_LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 64,
}

KINDS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "dense": ("qwen3", {}),
    "biases": ("qwen2", {"hidden_size": 128}),
    "tied": ("qwen3", {"tie_word_embeddings": True}),
    "windows and tied": (
        "gemma3_text",
        {
            "tie_word_embeddings": True,
            "sliding_window": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 32,
        },
    ),
    "fused projections": ("phi3", {"hidden_size": 128}),
    "experts": (
        "qwen3_moe",
        {"num_experts": 4, "decoder_sparse_step": 1, "mlp_only_layers": [], **_EXPERTS},
    ),
    "experts with a router bias": (
        "glm4_moe",
        {
            "n_routed_experts": 4,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "n_group": 1,
            "topk_group": 1,
            "partial_rotary_factor": 0.5,
            "use_qk_norm": False,
            **_EXPERTS,
        },
    ),
    "latent attention": ("deepseek_v3", _LATENT),
}


def write_pair(folder: Path, kind: str, dtype: str = "float32", **changes: Any) -> Models:
    """Write two random models of one kind; return them as parents.

    Args:
        folder: For the two directories.
        kind: In `KINDS`.
        dtype: Name of the torch dtype that they are stored and merged in.
        changes: To the configuration.
    """
    model_type, particular = KINDS[kind]
    config = AutoConfig.for_model(model_type, **{**_COMMON, **particular, **changes})
    paths = [_write(folder / name, config, dtype, seed) for seed, name in enumerate("ab")]
    search = MergeSettings(embeddings="search", head="search")
    return Models(paths[0], (paths[1],), dtype, search)


def _write(directory: Path, config: Any, dtype: str, seed: int) -> Path:
    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if name.endswith(("norm.weight", "bias")):
                tensor.add_(0.2 * torch.randn_like(tensor))
    model.to(getattr(torch, dtype)).save_pretrained(directory)
    AutoTokenizer.from_pretrained(BASE).save_pretrained(directory)
    return directory


def write_llama(directory: Path, seed: int = 0, dtype: str = "bfloat16", **changes: Any) -> Path:
    """Write a random Llama of two layers in several files, without a tokenizer.

    Args:
        directory: To create.
        seed: Of its weights.
        dtype: Name of the torch dtype that they are stored in.
        changes: To the configuration.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(**{**_LLAMA, **changes})
    model: Any = LlamaForCausalLM(config)
    model.to(getattr(torch, dtype)).save_pretrained(directory, max_shard_size="20KB")
    return directory


def store(directory: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Rewrite a checkpoint's tensors, each as a function of its name and values."""
    path = directory / "model.safetensors"
    tensors = {name: change(name, tensor) for name, tensor in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
