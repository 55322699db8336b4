"""Tensor name -> the part of the model it belongs to, by integer parsing.

A search variable moves exactly the tensors of its part. The layer index is read as an integer
between two dots, so layer 1 and layers 10-19 can never share a variable. A name that no rule
covers is an error: a tensor is never dropped and never merged by accident.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ...errors import LayoutError

Kind = Literal["layer", "embeddings", "head"]
Module = Literal["attn", "mlp"]

# The decoder stack of the causal language models that transformers builds, alone or inside a
# multimodal wrapper. Vision and audio towers have stacks of their own under other prefixes.
_PREFIX = r"^(?:model\.|language_model\.model\.|model\.language_model\.|transformer\.)?"
_LAYER = re.compile(_PREFIX + r"(?:layers|h)\.(?P<index>\d+)\.(?P<rest>.+)$")
_EMBEDDINGS = re.compile(_PREFIX + r"(?:embed_tokens|wte)\.weight$")
_HEAD = re.compile(
    r"^(?:language_model\.)?lm_head\.(?:weight|bias)$|"
    + _PREFIX
    + r"(?:norm|ln_f)\.(?:weight|bias)$"
)

_ATTENTION = ("self_attn.", "attn.", "attention.", "input_layernorm.", "ln_1.")
_FEED_FORWARD = (
    "mlp.",
    "block_sparse_moe.",
    "feed_forward.",
    "pre_feedforward_layernorm.",
    "post_feedforward_layernorm.",
    "ln_2.",
)


@dataclass(frozen=True)
class Part:
    """Where a tensor belongs.

    Args:
        kind: `layer`, `embeddings` (input), or `head` (final norm and output matrix: SIP-BMM
            gives these two one variable as well).
        index: The layer's index; None outside the layers.
        module: `attn` or `mlp`, each with the norms that belong to it; None outside the layers.
    """

    kind: Kind
    index: int | None = None
    module: Module | None = None


def locate(name: str, sandwich_norms: bool = False) -> Part:
    """Return the part that the tensor called `name` belongs to.

    Args:
        name: A parameter's name, in a checkpoint or a live module.
        sandwich_norms: Whether the layers also have a norm around the feed-forward module
            (Gemma 2 and 3, OLMo 2). There `post_attention_layernorm` ends the attention module;
            elsewhere, despite its name, it opens the feed-forward module.

    Raises:
        LayoutError: If no rule covers the name.
    """
    if match := _LAYER.match(name):
        module = _module_of(match["rest"], sandwich_norms)
        if module is not None:
            return Part("layer", int(match["index"]), module)
    if _EMBEDDINGS.match(name):
        return Part("embeddings")
    if _HEAD.match(name):
        return Part("head")
    raise LayoutError(
        f"Every tensor must belong to a layer, the embeddings or the head, but no rule covers "
        f"{name!r}. Merge text-only checkpoints, or add a rule in objectives/merging/layers.py."
    )


def _module_of(rest: str, sandwich_norms: bool) -> Module | None:
    if rest.startswith("post_attention_layernorm."):
        return "attn" if sandwich_norms else "mlp"
    if rest.startswith(_ATTENTION):
        return "attn"
    return "mlp" if rest.startswith(_FEED_FORWARD) else None


def locate_all(names: Iterable[str], tied: bool = False) -> dict[str, Part]:
    """Return the part of every tensor of one model.

    Args:
        names: All names of the model's tensors.
        tied: Whether the output matrix is the embeddings. A checkpoint may still hold a copy
            under `lm_head.weight`, which then belongs to the embeddings.

    Raises:
        LayoutError: If a name is covered by no rule, or the layers found are not 0 ... L-1.
    """
    listed = list(names)
    sandwich = any(".post_feedforward_layernorm." in name for name in listed)
    parts = {name: locate(name, sandwich) for name in listed}
    if tied:
        copies = [name for name in listed if name.endswith("lm_head.weight")]
        parts |= dict.fromkeys(copies, Part("embeddings"))
    indices = {part.index for part in parts.values() if part.index is not None}
    if indices != set(range(len(indices))):
        missing = sorted(set(range(max(indices))) - indices)
        raise LayoutError(
            f"Layers must be numbered 0 ... L-1, but layers {missing} have no tensor."
        )
    return parts


def count_layers(parts: Iterable[Part]) -> int:
    """Return the number of layers among `parts`."""
    return len({part.index for part in parts if part.index is not None})
