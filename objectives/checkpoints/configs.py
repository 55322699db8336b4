"""Configurations compared as transformers understands them: what changes an answer must be equal.

A merge is computed by the base's module. An expert whose rotary base, norm or activation is
another one would be another model there, and no weight would say so.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ...errors import SpecError
from .text_files import read_json

# Differences named first, because they explain the others.
_ARCHITECTURE = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "vocab_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
)
# What no forward pass depends on: training, bookkeeping, what is returned beside the logits.
# Stop tokens and precision are decided elsewhere; the others' ends (`_token_id`) name tokens.
_HARMLESS = {
    "_name_or_path",
    "architectures",
    "auto_map",
    "aux_loss_alpha",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_encoder_decoder",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "pretraining_tp",
    "problem_type",
    "quantization_config",
    "return_dict",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "router_z_loss_coef",
    "seq_aux",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
_HARMLESS_PARTS = ("dropout", "pdrop", "_token_id")
POSITIONS = "max_position_embeddings"
# Rotary embeddings that ask how long a text may become.
_POSITIONS_MATTER = ("dynamic", "longrope", "su", "yarn")
_ROWS = "vocab_size"
_WINDOWS = ("sliding_window", "use_sliding_window", "max_window_layers")


def load_config(directory: Path) -> Any:
    """Return the configuration of a directory's language model, defaults filled in.

    Raises:
        SpecError: If it cannot be read, or this version of transformers does not know the model.
    """
    return _part_of(directory, lambda config: config.get_text_config())


def _part_of(directory: Path, part: Callable[[Any], Any]) -> Any:
    """Return a part of a directory's whole configuration; see `load_config`."""
    from transformers import AutoConfig

    try:
        return part(
            AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        )
    except Exception as error:  # whatever a configuration's own checks raise
        reason = " ".join(str(error).split())
        code = "trust_remote_code" in reason or "custom code" in reason
        way = (
            "Code from checkpoints is never run: choose a model that transformers has built in."
            if code
            else "Correct its config.json, or install a version of transformers that knows it."
        )
        raise SpecError(
            f"A model's configuration must be one that transformers knows, but {directory} has: "
            f"{reason:.200} {way}"
        ) from error


def computed_by(config: Any) -> dict[str, Any]:
    """Return what a forward pass depends on, flat: `rope_parameters.rope_theta` -> value."""
    known = config.to_dict()
    own = {field.name for field in fields(config)} if is_dataclass(config) else set(known)
    kept = {
        key: value
        for key, value in known.items()
        if (key in own or key == "model_type") and not _is_harmless(key)
    }
    for key in _unused(kept):
        kept.pop(key, None)
    return {key: value for key, value in _flat(kept) if value is not None}


def _by_one_name(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values without `type` beside `rope_type`: it is what older files call the same."""
    old = {key for key in values if f"{key.removesuffix('type')}rope_type" in values}
    return {key: value for key, value in values.items() if key not in old}


def _is_harmless(key: str) -> bool:
    return key in _HARMLESS or any(part in key for part in _HARMLESS_PARTS)


def _unused(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield keys that these values of others make meaningless."""
    layers = values.get("layer_types")
    if layers and "sliding_attention" not in layers:
        yield from _WINDOWS
    elif layers:
        yield from _WINDOWS[1:]  # said layer by layer
    ropes = [v for k, v in _flat(values.get("rope_parameters") or {}) if k.endswith("rope_type")]
    if not any(kind in _POSITIONS_MATTER for kind in ropes):
        yield POSITIONS


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def check_same_forward(base: Path, expert: Path, fitted: bool = False) -> None:
    """Check that an expert is computed as the base is.

    Args:
        base: Its directory.
        expert: Its directory.
        fitted: Whether the expert is read with the base's number of embedding rows.

    Raises:
        SpecError: At the first difference, with both values.
    """
    ignored = (_ROWS,) if fitted else ()
    _check_written(base, expert, ignored)
    configs = (load_config(directory) for directory in (base, expert))
    ours, theirs = (_by_one_name(computed_by(config)) for config in configs)
    others = sorted(ours.keys() | theirs.keys(), key=lambda key: (key == POSITIONS, key))
    for key in [*_ARCHITECTURE, *others]:
        if key in ignored or ours.get(key) == theirs.get(key):
            continue
        both = f"{key} is {ours.get(key)!r} in {base} and {theirs.get(key)!r} in {expert}"
        if key in _ARCHITECTURE:
            raise _other_architecture(both)
        raise SpecError(
            f"An expert must be computed as the base is, but {both}: merges are computed by the "
            "base's configuration, and weight 1 would not be the expert. Choose another pair; or, "
            "if you accept that, give the expert's config.json the base's value."
        )


def _check_written(base: Path, expert: Path, ignored: Sequence[str]) -> None:
    """Compare what both files say of the architecture: it explains why one may be no model."""
    ours, theirs = (_written(directory) for directory in (base, expert))
    for key in (key for key in _ARCHITECTURE if key not in ignored):
        if key in ours and key in theirs and ours[key] != theirs[key] and theirs[key] is not None:
            raise _other_architecture(
                f"{key} is {ours[key]!r} in {base} and {theirs[key]!r} in {expert}"
            )


def _written(directory: Path) -> dict[str, Any]:
    content = read_json(directory / "config.json")
    nested: dict[str, Any] = content.get("text_config") or content
    return nested


def _other_architecture(both: str) -> SpecError:
    return SpecError(
        f"An expert must have the base's architecture, but {both}. Choose models fine-tuned from "
        "one ancestor."
    )


def positions(directory: Path) -> int | None:
    """Return how many positions a model has; None if its configuration does not say."""
    return positions_of(load_config(directory))


def positions_of(config: Any) -> int | None:
    """Return the same of a configuration; models that know distances alone (ALiBi) say none."""
    found: int | None = getattr(config, POSITIONS, None)
    return found


def config_hash(directory: Path) -> str:
    """Return `sha256:...` over what a forward pass depends on, and the number of positions."""
    config = load_config(directory)
    content = {**computed_by(config), POSITIONS: getattr(config, POSITIONS, None)}
    text = json.dumps(content, sort_keys=True, default=str)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def stop_tokens(directory: Path) -> frozenset[int]:
    """Return the ids that end an answer: the generation config's, else the model config's.

    Returns:
        Empty, if neither has any; an adapter's are the base's, unless it brings its own.

    Raises:
        SpecError: If a file cannot be read, or names what is no token's number.
    """
    from transformers import GenerationConfig

    configured = None
    if (directory / "generation_config.json").is_file():
        try:
            configured = GenerationConfig.from_pretrained(directory).eos_token_id
        except Exception as error:
            raise SpecError(
                f"A generation config must be valid JSON with known keys, but that of {directory} "
                f"is not: {' '.join(str(error).split()):.200}"
            ) from error
    if configured is None and (directory / "config.json").is_file():
        # A multimodal model's own come before those of its language model.
        configured = _part_of(
            directory, lambda config: GenerationConfig.from_model_config(config).eos_token_id
        )
    if configured is None:
        return frozenset()
    given = configured if isinstance(configured, list | tuple) else [configured]
    for token in given:
        if isinstance(token, bool) or not isinstance(token, int) or token < 0:
            raise SpecError(
                f"A stop token must be a token's number, but eos_token_id of {directory} has "
                f"{token!r:.40}. Correct its generation_config.json or config.json."
            )
    return frozenset(given)
