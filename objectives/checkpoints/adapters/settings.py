"""The settings of an adapter in PEFT's format: which are understood."""

import math
from pathlib import Path
from typing import Any

from ....errors import SpecError
from ..tensor_files import FileTensor, parse_header
from ..text_files import read_json

CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Options of PEFT that change what the adapter means: the values that are understood.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "megatron_core": ("megatron.core", None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    # Others, such as PiSSA, change the base: what was trained is no sum with it.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}
# Options that say how it was trained, not what it means, and those that are read: what the lists
# of modules name must be in the file (`promises.py`).
_HARMLESS = frozenset(
    {
        *("task_type", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping"),
        *("peft_version", "target_modules", "exclude_modules", "layers_to_transform"),
        *("layers_pattern", "modules_to_save", "lora_dropout", "eva_config", "r", "lora_alpha"),
        *("qalora_group_size", "use_rslora", "lora_bias"),
    }
)
_AGAIN = "Merge the adapter with PEFT (merge_and_unload) and give the result's path."


def read_settings(directory: Path) -> dict[str, Any]:
    """Read and check an adapter's settings.

    Raises:
        SpecError: If one means something that is not understood.
    """
    settings: dict[str, Any] = read_json(directory / CONFIG)
    if not (directory / ADAPTER_WEIGHTS).is_file():
        raise SpecError(
            f"An adapter must have {ADAPTER_WEIGHTS}, but {directory} has none. Save it with "
            "`save_pretrained(..., safe_serialization=True)`."
        )
    for key, plain in _PLAIN.items():
        value = settings.get(key, plain[0])
        if not any(value is known or value == known for known in plain):
            raise SpecError(
                f"A LoRA expert must have {key} = {plain[0]!r}, but {directory} has {value!r}. "
                f"{_AGAIN}"
            )
    for key, value in settings.items():
        # Every option of PEFT that is off is one of these.
        if key not in _HARMLESS and key not in _PLAIN and value not in (None, False, [], {}):
            raise SpecError(
                f"A LoRA expert must be plain, but {directory} sets {key} = {value!r}, which is "
                f"not understood. {_AGAIN}"
            )
    return settings


def scaling_of(settings: dict[str, Any], directory: Path) -> tuple[int, float]:
    """Return an adapter's rank, and the factor of its products.

    Raises:
        SpecError: If they are no numbers above 0.
    """
    rank: Any = settings.get("r")
    alpha = settings.get("lora_alpha")
    has_rank = isinstance(rank, int) and rank > 0
    if has_rank and isinstance(alpha, int | float) and 0 < alpha < math.inf:
        return rank, alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    raise SpecError(
        f"An adapter must have r and lora_alpha above 0, but {directory} has {rank!r} and "
        f"{alpha!r}. Correct its {CONFIG}."
    )


def read_tensors(directory: Path) -> dict[str, FileTensor]:
    """Return an adapter's tensors by their names in its file.

    Raises:
        SpecError: If there are none, or one is quantized.
    """
    tensors = parse_header(directory / ADAPTER_WEIGHTS)
    if not tensors:
        raise SpecError(
            f"An adapter must change the base, but {directory / ADAPTER_WEIGHTS} holds no tensor. "
            "Save it again."
        )
    for name, tensor in tensors.items():
        if not tensor.dtype.is_floating_point:
            raise SpecError(
                f"Weights must be stored as floating-point numbers, but {name!r} is "
                f"{tensor.dtype} in {directory}. {_AGAIN}"
            )
    return tensors
