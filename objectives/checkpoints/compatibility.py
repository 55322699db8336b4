"""Refuse experts that cannot be merged into the base, naming what differs."""

from collections.abc import Sequence
from typing import Any, cast

from ...errors import SpecError
from .lora import LoraCheckpoint
from .reader import Checkpoint

# Compared in this order, so that the first difference named is the most telling one.
_SHAPE_KEYS = (
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


def text_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the configuration of the language model, inside a multimodal one where it is."""
    return cast(dict[str, Any], checkpoint.config.get("text_config", checkpoint.config))


def is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the output matrix is the embeddings."""
    tied = text_config(checkpoint).get("tie_word_embeddings")
    return not any(name.endswith("lm_head.weight") for name in checkpoint.layout) or bool(tied)


def check_mergeable(base: Checkpoint, experts: Sequence[Checkpoint]) -> None:
    """Check architecture, tensors and vocabulary of every expert against the base.

    Raises:
        SpecError: At the first difference, with both values.
    """
    for expert in experts:
        if isinstance(expert, LoraCheckpoint):
            continue  # checked against the base when it was opened
        _check_architecture(base, expert)
        _check_tensors(base, expert)
        _check_vocabulary(base, expert)


def _check_architecture(base: Checkpoint, expert: Checkpoint) -> None:
    ours, theirs = text_config(base), text_config(expert)
    for key in _SHAPE_KEYS:
        if ours.get(key) != theirs.get(key):
            raise SpecError(
                f"An expert must have the base's architecture, but {key} is {ours.get(key)!r} in "
                f"{base.directory} and {theirs.get(key)!r} in {expert.directory}. Choose models "
                "fine-tuned from one ancestor."
            )


def _check_tensors(base: Checkpoint, expert: Checkpoint) -> None:
    ours, theirs = base.shapes(), expert.shapes()
    if ours.keys() != theirs.keys():
        only_base, only_expert = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
        raise SpecError(
            "An expert must have the base's tensors, but "
            f"{_some(only_base)} only in {base.directory} and {_some(only_expert)} only in "
            f"{expert.directory}. Save both with the same version of transformers."
        )
    for name, shape in ours.items():
        if shape != theirs[name]:
            raise SpecError(
                f"An expert must have the base's tensor shapes, but {name} is {shape} in "
                f"{base.directory} and {theirs[name]} in {expert.directory}."
            )


def _check_vocabulary(base: Checkpoint, expert: Checkpoint) -> None:
    ours, theirs = _vocabulary(base), _vocabulary(expert)
    differing = {
        token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token)
    }
    if differing:
        raise SpecError(
            f"An expert must have the base's vocabulary, but the tokenizers differ in "
            f"{len(differing)} token(s): {_some(differing)} ({base.directory}, "
            f"{expert.directory}). Align them first, e.g. with mergekit-tokensurgeon."
        )


def _vocabulary(checkpoint: Checkpoint) -> dict[str, int]:
    from transformers import AutoTokenizer

    # Without any of these, transformers builds an empty tokenizer and says nothing.
    files = ("tokenizer.json", "tokenizer.model", "vocab.json")
    if not any((checkpoint.directory / name).is_file() for name in files):
        raise SpecError(
            f"A model needs its tokenizer, but {checkpoint.directory} has none of "
            f"{', '.join(files)}. Copy the tokenizer's files there."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.directory, local_files_only=True)
    except (OSError, ValueError) as error:
        raise SpecError(
            f"A model needs its tokenizer, but the one in {checkpoint.directory} cannot be loaded "
            f"({type(error).__name__}). Copy its files again."
        ) from error
    return dict(tokenizer.get_vocab())


def _some(names: set[str], limit: int = 3) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:limit])
    return (shown or "none") + (f", ... ({len(names)})" if len(names) > limit else "")
