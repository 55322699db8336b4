"""Refuse experts that cannot be merged into the base, naming what differs."""

from collections.abc import Sequence
from typing import Any, cast

from ...errors import SpecError
from .configs import check_same_forward
from .lora import LoraCheckpoint
from .reader import Checkpoint
from .tokenizers import load_tokenizer


def text_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the configuration of the language model, inside a multimodal one where it is."""
    return cast(dict[str, Any], checkpoint.config.get("text_config", checkpoint.config))


def is_tied(checkpoint: Checkpoint) -> bool:
    """Whether the output matrix is the embeddings."""
    tied = text_config(checkpoint).get("tie_word_embeddings")
    return not any(name.endswith("lm_head.weight") for name in checkpoint.layout) or bool(tied)


def check_mergeable(base: Checkpoint, experts: Sequence[Checkpoint]) -> None:
    """Check configuration, tensors and vocabulary of every expert against the base.

    Raises:
        SpecError: At the first difference, with both values.
    """
    base.shapes()  # every header is read: what is broken is said before anything else
    for expert in experts:
        if isinstance(expert, LoraCheckpoint):
            continue  # checked against the base when it was opened
        check_same_forward(base.directory, expert.directory)
        _check_tensors(base, expert)
        _check_vocabulary(base, expert)


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
    ours, theirs = (load_tokenizer(c.directory).get_vocab() for c in (base, expert))
    differing = {
        token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token)
    }
    if differing:
        raise SpecError(
            f"An expert must have the base's vocabulary, but the tokenizers differ in "
            f"{len(differing)} token(s): {_some(differing)} ({base.directory}, "
            f"{expert.directory}). Align them first, e.g. with mergekit-tokensurgeon."
        )


def _some(names: set[str], limit: int = 3) -> str:
    shown = ", ".join(repr(name) for name in sorted(names)[:limit])
    return (shown or "none") + (f", ... ({len(names)})" if len(names) > limit else "")
