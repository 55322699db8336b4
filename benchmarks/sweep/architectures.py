"""Tiny models with random weights, one for each architecture of today."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from mergefront.objectives.checkpoints.tensors import model_class

_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MOE: dict[str, Any] = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
}
_LATENT: dict[str, Any] = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "first_k_dense_replace": 1,
}
_LINEAR: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "full_attention_interval": 2,
}
_STATE: dict[str, Any] = {
    "mamba_n_heads": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_d_head": 8,
    "mamba_expand": 2,
    "mamba_chunk_size": 8,
    "layer_types": ["mamba", "attention"],
    "shared_intermediate_size": 32,
}
_SLIDING: dict[str, Any] = {"layer_types": ["sliding_attention", "full_attention"]}
_PER_LAYER: dict[str, Any] = {
    "vocab_size_per_layer_input": 64,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
    "sliding_window": 8,
    **_SLIDING,
}
_VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_PHI_AUDIO: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_blocks": 2,
    "num_attention_heads": 2,
    "input_size": 16,
    "ext_pw_out_channel": 16,
    "depthwise_separable_out_channel": 16,
    "nemo_conv_channels": 16,
    "nemo_final_size": 2,
}

# Name in the table -> (model_type, settings beside `_TEXT`).
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 3": ("llama", {}),
    "Llama 3, tied": ("llama", {"tie_word_embeddings": True}),
    "Llama 4, text": ("llama4_text", {**_MOE, "intermediate_size_mlp": 32, "moe_layers": [1]}),
    "Mistral": ("mistral", {}),
    "Ministral 3": ("ministral3", {}),
    "Mixtral": ("mixtral", _MOE),
    "Qwen 2": ("qwen2", {}),
    "Qwen 2 MoE": ("qwen2_moe", _MOE),
    "Qwen 3": ("qwen3", {}),
    "Qwen 3 MoE": ("qwen3_moe", _MOE),
    "Qwen 3 Next": ("qwen3_next", {**_MOE, **_LINEAR}),
    "Qwen 3.5, text": ("qwen3_5_text", _LINEAR),
    "Qwen 3.5 MoE, text": ("qwen3_5_moe_text", {**_MOE, **_LINEAR}),
    "Gemma 2": ("gemma2", {}),
    "Gemma 3, text": ("gemma3_text", {}),
    "Gemma 3n, text": ("gemma3n_text", {**_PER_LAYER, "laurel_rank": 4}),
    "Gemma 4, text": ("gemma4_text", {**_PER_LAYER, "global_head_dim": 8}),
    "Phi 3 and 4": ("phi3", {}),
    "OLMo 2": ("olmo2", {}),
    "OLMo 3": ("olmo3", {}),
    "GLM 4": ("glm4", {}),
    "GLM 4.5": ("glm4_moe", {**_MOE, "first_k_dense_replace": 1, "n_shared_experts": 1}),
    "DeepSeek V2": ("deepseek_v2", {**_MOE, **_LATENT, "topk_method": "greedy"}),
    "DeepSeek V3": ("deepseek_v3", {**_MOE, **_LATENT, "head_dim": 4}),
    "gpt-oss": ("gpt_oss", {**_MOE, **_SLIDING}),
    "Granite": ("granite", {}),
    "Granite MoE": ("granitemoe", _MOE),
    "Granite 4 hybrid": ("granitemoehybrid", {**_MOE, **_STATE}),
    "Cohere 2": ("cohere2", _SLIDING),
    "SmolLM 3": ("smollm3", {}),
    "Falcon": ("falcon", {"head_dim": None, "multi_query": True}),
    "Falcon, new decoder": (
        "falcon",
        {"head_dim": None, "new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "StableLM": ("stablelm", {}),
    "GPT-NeoX": ("gpt_neox", {}),
    "Apertus": ("apertus", {}),
    "LFM 2": ("lfm2", {"layer_types": ["conv", "full_attention"], "block_ff_dim": 48}),
    "MiniMax": ("minimax", {**_MOE, "layer_types": ["linear_attention", "full_attention"]}),
    "MiniMax M2": ("minimax_m2", _MOE),
    "GPT-2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "Gemma": ("gemma", {}),
    "Cohere": ("cohere", {}),
    "OLMo": ("olmo", {}),
    "OLMoE": ("olmoe", _MOE),
    "OLMo hybrid": ("olmo_hybrid", _LINEAR),
    "Arcee": ("arcee", {}),
    "Arcee AFMoE": ("afmoe", {**_MOE, **_SLIDING, "num_dense_layers": 1}),
    "Nemotron": ("nemotron", {}),
    "Starcoder 2": ("starcoder2", {}),
    "Phi 2": ("phi", {}),
    "Phi 3.5 MoE": ("phimoe", _MOE),
    "GLM": ("glm", {}),
    "GLM 4.7 Flash": ("glm4_moe_lite", {**_MOE, **_LATENT}),
    "EXAONE 4": ("exaone4", _SLIDING),
    "EXAONE MoE": ("exaone_moe", {**_MOE, **_SLIDING, "first_k_dense_replace": 1}),
    "ERNIE 4.5": ("ernie4_5", {}),
    "ERNIE 4.5 MoE": ("ernie4_5_moe", {**_MOE, "moe_num_experts": 4, "moe_k": 2}),
    "Hunyuan": ("hunyuan_v1_dense", {}),
    "Hunyuan MoE": (
        "hunyuan_v1_moe",
        {**_MOE, "moe_topk": [2, 2], "num_shared_expert": [1, 1]},
    ),
    "Seed-OSS": ("seed_oss", {}),
    "Helium": ("helium", {}),
    "dots.llm1": ("dots1", {**_MOE, "first_k_dense_replace": 1, "n_shared_experts": 1}),
    "Solar Open": ("solar_open", _MOE),
    "MiMo V2 Flash": ("mimo_v2_flash", _MOE),
    "Granite MoE, shared": ("granitemoeshared", {**_MOE, "shared_intermediate_size": 32}),
    "LFM 2 MoE": (
        "lfm2_moe",
        {**_MOE, "layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    ),
    "Falcon H1": (
        "falcon_h1",
        {**_STATE, "layer_types": None, "mamba_d_ssm": 32, "mamba_n_heads": 4},
    ),
    "Kimi Linear": ("kimi_linear", _MOE),
    "BLOOM": (
        "bloom",
        {"n_layer": 2, "n_head": 4, "head_dim": None, "max_position_embeddings": None},
    ),
    "OPT": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32, "head_dim": None}),
    "Gemma 3, with vision": ("gemma3", {"vision_config": _VISION, "mm_tokens_per_image": 4}),
    "Mistral 3, with vision": (
        "mistral3",
        {"vision_config": {"model_type": "pixtral", **_VISION}},
    ),
    "Qwen 2.5 VL": ("qwen2_5_vl", {}),
    "Qwen 3 VL": ("qwen3_vl", {}),
    "Qwen 3.5, with vision": ("qwen3_5", {}),
    "Llama 4, with vision": ("llama4", {}),
    "Gemma 4, with vision": ("gemma4", {}),
    "Gemma 3n, with vision and audio": ("gemma3n", {}),
    "Phi 4, with vision and audio": (
        "phi4_multimodal",
        {
            "vision_config": {**_VISION, "num_hidden_layers": 2, "crop_size": 16},
            "audio_config": _PHI_AUDIO,
        },
    ),
}
# What an architecture needs that is no dependency of ours.
_NEEDED = {"Gemma 3n, with vision and audio": "timm"}
# Not run, and why.
LEFT_OUT = {
    name: f"its towers need the package {package}; it is run where that is installed"
    for name, package in _NEEDED.items()
    if importlib.util.find_spec(package) is None
}
for _name in LEFT_OUT:
    del ARCHITECTURES[_name]
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
# The language model inside a multimodal one: its model_type and settings.
_INSIDE: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": ("gemma3_text", {}),
    "mistral3": ("mistral", {}),
    "qwen2_5_vl": ("qwen2_5_vl_text", {"rope_parameters": _MROPE}),
    "qwen3_vl": ("qwen3_vl_text", {"rope_parameters": _MROPE}),
    "qwen3_5": ("qwen3_5_text", _LINEAR),
    "llama4": ARCHITECTURES["Llama 4, text"],
    "gemma4": ARCHITECTURES["Gemma 4, text"],
    "gemma3n": ARCHITECTURES["Gemma 3n, text"],
}
_QWEN_VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 8,
    "fullatt_block_indexes": [0],
    "deepstack_visual_indexes": [0],
}
_TOWERS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {"vision_config": _QWEN_VISION},
    "qwen3_vl": {"vision_config": _QWEN_VISION},
    "qwen3_5": {"vision_config": _QWEN_VISION},
    "llama4": {
        "vision_config": {
            **_VISION,
            "vision_output_dim": 16,
            "projector_input_dim": 16,
            "projector_output_dim": 16,
        }
    },
    "gemma4": {"vision_config": {**_VISION, "head_dim": 8, "num_key_value_heads": 2}},
    "gemma3n": {
        "vision_config": {"architecture": "mobilenetv3_small_050", "hidden_size": 16},
        "audio_config": {
            "hidden_size": 16,
            "input_feat_size": 16,
            "conf_num_attention_heads": 2,
            "conf_num_hidden_layers": 1,
            "sscp_conv_channel_size": [4, 4],
        },
    },
}


def config_of(name: str) -> Any:
    """Return the configuration of a tiny model."""
    kind, settings = ARCHITECTURES[name]
    if kind not in _INSIDE:
        # None leaves a setting out: some families compute it.
        own = {k: v for k, v in {**_TEXT, **settings}.items() if v is not None}
        return AutoConfig.for_model(kind, **own)
    inside, own = _INSIDE[kind]
    text = {"model_type": inside, **_TEXT, **own}
    return AutoConfig.for_model(kind, text_config=text, **{**_TOWERS.get(kind, {}), **settings})


def write_model(config: Any, dtype: torch.dtype, seed: int, directory: Path) -> None:
    """Save a model of random numbers, towers alike for all seeds.

    Every tensor gets noise: what is initialised to a constant would hide that it is not merged.
    """
    torch.manual_seed(0)
    whole = AutoModelForImageTextToText
    builder = whole if type(config) in whole._model_mapping else model_class(config)
    model = builder.from_config(config, dtype=dtype)
    generator = torch.Generator().manual_seed(seed)
    saved = model.state_dict()
    towers = ("vision", "visual", "multi_modal", "projector", "audio", "extend")
    with torch.no_grad():
        for name in sorted({n for n, _ in [*model.named_parameters(), *model.named_buffers()]}):
            tensor = saved.get(name)
            if tensor is None or not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator) * 0.05
            if not any(word in name for word in towers):
                tensor.add_(noise.to(tensor.dtype))
    model.save_pretrained(directory)
