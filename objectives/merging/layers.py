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

Kind = Literal["layer", "embeddings", "head", "tower"]
Module = Literal["attn", "mlp"]

# The decoder stack of the language models that transformers builds, alone or inside a multimodal
# wrapper. Vision and audio towers have stacks of their own under other prefixes.
_PREFIX = (
    r"^(?:model\.language_model\.|language_model\.model\.|model\.text_model\.|model\.decoder\.|"
    r"model\.|language_model\.|transformer\.|gpt_neox\.|backbone\.)?"
)
_LAYER = re.compile(_PREFIX + r"(?:layers|h)\.(?P<index>\d+)\.(?P<rest>.+)$")
# What comes before the first layer: beside the embeddings their norms and projections, learned
# positions, and the inputs that Gemma 3n and 4 give to each layer.
_EMBEDDINGS = re.compile(
    _PREFIX
    + r"(?:embed_tokens|word_embeddings|wte|wpe|embed_in|embeddings|embed_positions|"
    + r"word_embeddings_layernorm|embed_tokens_per_layer|per_layer_model_projection|"
    + r"per_layer_projection_norm|altup_projections\.\d+)\.(?:weight|bias)$"
)
# What comes after the last layer: the final norm and the output matrix.
_HEAD = re.compile(
    r"^(?:language_model\.)?(?:lm_head|embed_out)\.(?:weight|bias)$|"
    + _PREFIX
    + r"(?:norm|ln_f|norm_f|final_norm|final_layer_norm|final_layernorm|embedding_norm|"
    + r"altup_unembed_projections\.\d+)\.(?:weight|bias)$"
)
_TOWER = re.compile(
    r"^(?:model\.)?(?:vision_tower|vision_model|vision_embed_tokens|vision_projection|visual|"
    r"embed_tokens_extend|"
    r"multi_modal_projector|mm_projector|connector|audio_tower|audio_model|audio_projector|"
    r"embed_audio|embed_vision|image_newline|aligner|projector)(?:\.|$)"
)
_ROUTER = re.compile(
    r"\.(?:mlp|block_sparse_moe|feed_forward|moe)\.(?:gate|router|expert_bias|moe_statics|"
    r"e_score_correction_bias)(?:\.|$)|\.router\."
)

# First part of a name inside a layer -> its module. Norms go with what they feed or what they end.
_ATTENTION = frozenset(
    {
        *("self_attn", "attn", "attention", "self_attention"),
        # in its place: linear attention, state spaces, convolutions
        *("linear_attn", "mamba", "mixer", "conv", "temporal_block"),
        # norms before and after it
        *("input_layernorm", "ln_1", "operator_norm", "attention_layernorm", "attention_norm"),
        *("attention_layer_norm", "temporal_pre_norm", "post_self_attn_layernorm", "ln_attn"),
        *("self_attn_layer_norm", "norm", "attn_norm"),
        # Gemma 3n: beside the attention
        "laurel",
    }
)
_FEED_FORWARD = frozenset(
    {
        *("mlp", "block_sparse_moe", "feed_forward", "shared_mlp", "moe", "experts", "router"),
        *("fc1", "fc2", "mlp_block", "channel_pre_norm", "feedforward_layer_norm"),
        *("pre_feedforward_layernorm", "pre_feedforward_layernorm_2", "pre_mlp_layernorm"),
        *("post_feedforward_layernorm", "post_feedforward_layernorm_1"),
        *("post_feedforward_layernorm_2", "post_mlp_layernorm", "feedforward_layernorm"),
        *("ln_2", "ln_mlp", "ffn_norm", "pre_ff_layernorm", "final_layer_norm", "final_layernorm"),
        # Gemma 3n and 4: what a layer does after its feed-forward module
        *("altup", "per_layer_input_gate", "per_layer_projection", "post_per_layer_input_norm"),
        "layer_scalar",
    }
)
# A norm of these names before or after the feed-forward module: `post_attention_layernorm` then
# ends the attention.
_SANDWICH = (".post_feedforward_layernorm.", ".pre_feedforward_layernorm.", ".pre_mlp_layernorm.")


@dataclass(frozen=True)
class Part:
    """Where a tensor belongs.

    Args:
        kind: `layer`, `embeddings` (input), `head` (final norm and output matrix: SIP-BMM gives
            these two one variable as well), or `tower` (what reads images and sound).
        index: The layer's index; None outside the layers.
        module: `attn` or `mlp`, each with the norms that belong to it; None outside the layers.
        linear: Whether it is known to be the matrix of a linear layer inside a layer of the model,
            whose precision may be chosen. Names do not tell: see `derived.table_plan`.
    """

    kind: Kind
    index: int | None = None
    module: Module | None = None
    linear: bool = False


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
    if _TOWER.match(name):
        return Part("tower")
    raise _uncovered(name)


def _uncovered(name: str) -> LayoutError:
    match = _LAYER.match(name)
    what = (
        f"{match['rest'].split('.')[0]!r} is no known part of a layer; needed is its name among "
        "the attention's or the feed-forward module's"
        if match
        else "it lies outside the layers; needed is its name among the embeddings', the head's or "
        "the towers'"
    )
    return LayoutError(
        "Every tensor must belong to a layer, the embeddings, the head or a tower, but no rule "
        f"covers {name!r}: {what}, in objectives/merging/layers.py."
    )


def _module_of(rest: str, sandwich_norms: bool) -> Module | None:
    first = rest.split(".")[0]
    if first == "post_attention_layernorm":
        return "attn" if sandwich_norms else "mlp"
    if first in _ATTENTION:
        return "attn"
    return "mlp" if first in _FEED_FORWARD else None


def is_router(name: str) -> bool:
    """Whether a tensor chooses the experts of a mixture-of-experts layer."""
    return _ROUTER.search(name) is not None


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
    sandwich = any(norm in name for name in listed for norm in _SANDWICH)
    parts = {name: locate(name, sandwich) for name in listed}
    if tied:
        copies = [name for name in listed if name.endswith(("lm_head.weight", "embed_out.weight"))]
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
