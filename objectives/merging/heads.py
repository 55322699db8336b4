"""Attention heads: matrices cut into the parts of their key/value heads.

A head of the keys and values, and the query heads that read it, are rows of three projections and
columns of the one that ends the attention.
"""

import re
from collections.abc import Iterable, Mapping

from ...errors import LayoutError
from ..checkpoints.configs import load_config
from ..checkpoints.reader import Checkpoint
from .layers import locate
from .sources import Axis

_PROJECTION = re.compile(
    r"\.(?P<index>\d+)\.(?:self_attn|attn|attention)\.(?P<which>[qkv]_proj|o_proj|out_proj|dense)"
    r"\.(?P<kind>weight|bias)$"
)
_FUSED = re.compile(r"\.(?:qkv_proj|query_key_value|c_attn|Wqkv|kv_b_proj|in_proj_qkv)\.")


def head_axis(name: str) -> Axis | None:
    """Return along which axis a tensor is cut into heads; None for one that belongs to none.

    Biases after the last projection and norms of queries and keys are shared by all heads.
    """
    found = _PROJECTION.search(name)
    if found is None:
        return None
    if found["which"] in ("q_proj", "k_proj", "v_proj"):
        return 0
    return 1 if found["kind"] == "weight" else None


def count_heads(base: Checkpoint, names: Iterable[str]) -> int:
    """Return the number of key/value heads of every layer that has any.

    Args:
        base: Whose configuration and shapes are looked at.
        names: Of its tensors that are merged; towers have heads of their own and do not count.

    Raises:
        LayoutError: If a projection is fused with another one, is missing, or has other heads.
    """
    config = load_config(base.directory)
    n_query = getattr(config, "num_attention_heads", None)
    n_heads = getattr(config, "num_key_value_heads", None) or n_query
    if not isinstance(n_query, int) or not isinstance(n_heads, int):
        raise _no_heads(f"{base.directory} does not say how many heads its layers have")
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in (name for name in names if locate(name).kind == "layer"):
        if _FUSED.search(name):
            raise _no_heads(f"{name!r} of {base.directory} holds several projections")
        found = _PROJECTION.search(name)
        if found is not None and found["kind"] == "weight":
            which = found["which"] if found["which"] in ("q_proj", "k_proj", "v_proj") else "out"
            layers.setdefault(found["index"], {})[which] = tuple(base.tensor(name).shape)
    for index, shapes in layers.items():
        if not _fit(shapes, n_query, n_heads):
            raise _no_heads(
                f"layer {index} of {base.directory} has {shapes}, which is not that of {n_query} "
                f"query heads and {n_heads} key/value heads"
            )
    if not layers:
        raise _no_heads(f"{base.directory} has none")
    return n_heads


def _fit(shapes: Mapping[str, tuple[int, ...]], n_query: int, n_heads: int) -> bool:
    if shapes.keys() != {"q_proj", "k_proj", "v_proj", "out"}:
        return False
    queries, keys, values, out = (
        *(shapes[f"{letter}_proj"][0] for letter in "qkv"),
        shapes["out"][1],
    )
    whole = keys % n_heads == values % n_heads == n_query % n_heads == 0
    return whole and queries * n_heads == keys * n_query and out * n_heads == values * n_query


def _no_heads(reason: str) -> LayoutError:
    return LayoutError(
        "Granularity 'heads' needs the projections q_proj, k_proj, v_proj and o_proj as tensors "
        f"of their own, but {reason}. Use granularity 'layer' or 'layer-module'."
    )
