"""Activation importance: how differently the parents see the same prompts, layer by layer."""

import gc
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from ..evaluation.backends.chat import Chat
from ..evaluation.backends.loading import default_device, load_expert
from ..merging import MergePlan
from ..merging.layers import Part

Pooling = Literal["last", "mean"]
_LAYER = re.compile(r"(?:.*\.)?(?:layers|h)\.(\d+)")
# Where a hidden state is taken: input embeddings, a layer's number, or the final norm.
_Place = str | int


def activation_distances(  # noqa: PLR0913 - who is asked what, and how
    parents: Sequence[Path],
    plan: MergePlan,
    prompts: Sequence[tuple[str, bool]],
    dtype: str = "float32",
    pooling: Pooling = "last",
    batch_size: int = 8,
    chat: Chat | None = None,
) -> dict[str, float]:
    """Return the mean cosine distance between the parents' hidden states at each variable.

    AP-BMM's signal: one minus the cosine of base and expert after a layer, mean over prompts. A
    variable of several layers has their mean, that of a layer's module its layer's. Other than
    in the released code, prompts are rendered by the chat template, as candidates will be asked,
    and embeddings and head have values of their own (hidden states before the first
    layer and after the final norm), not the mean. One model is in memory at a time, and of its
    hidden states one vector a prompt and layer.

    Args:
        parents: Directories, base first; experts may be adapters.
        plan: The search variables.
        prompts: Messages, each with whether the chat template is applied. Of no split that a
            candidate is measured on.
        dtype: Of the models.
        pooling: Hidden state of the prompt's last token, or the mean over its tokens.
        batch_size: Prompts at once.
        chat: How candidates will be asked. Defaults to None: by the base's template.

    Returns:
        Parameter name -> distance, in [0, 2].
    """
    chat = chat or Chat(parents[0])
    rendered = [chat.render(text, is_chat) for text, is_chat in prompts]
    batches = [rendered[i : i + batch_size] for i in range(0, len(rendered), batch_size)]
    states = []
    for parent in parents:
        model = load_expert(parent, parents[0], dtype, default_device())
        states.append(_hidden_states(model, chat, batches, pooling))
        del model
        gc.collect()
    return {
        plan.parameter(group, k): _distance(plan, group, states[0], states[k])
        for group in plan.groups
        for k in range(1, len(parents))
    }


def _hidden_states(
    model: Any, chat: Chat, batches: Sequence[list[list[int]]], pooling: Pooling
) -> dict[_Place, Tensor]:
    """Return one pooled hidden state a prompt at every place, `prompts x width`-dim each."""
    found: dict[_Place, list[Tensor]] = {}
    mask: Tensor = torch.empty(0)

    def keep(place: _Place) -> Callable[[Any, Any, Any], None]:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            found.setdefault(place, []).append(_pooled(hidden, mask, pooling))

        return hook

    handles = [module.register_forward_hook(keep(place)) for place, module in _places(model)]
    for batch in batches:
        ids, mask = (part.to(model.device) for part in chat.padded(batch))
        with torch.inference_mode():
            output = model.base_model(input_ids=ids, attention_mask=mask)
        found.setdefault("head", []).append(_pooled(output[0], mask, pooling))
    for handle in handles:
        handle.remove()
    return {place: torch.cat(parts) for place, parts in found.items()}


def _places(model: Any) -> list[tuple[_Place, Any]]:
    """Return the modules whose outputs are compared: embeddings and every layer."""
    places: list[tuple[_Place, Any]] = [("embeddings", model.get_input_embeddings())]
    for name, module in model.base_model.named_modules():
        if match := _LAYER.fullmatch(name):
            places.append((int(match[1]), module))
    return places


def _pooled(hidden: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Return a vector a prompt, as float32 in main memory; prompts are padded on the left."""
    if pooling == "last":
        return hidden[:, -1].float().cpu()
    weights = mask.to(hidden.dtype).unsqueeze(-1)
    return ((hidden * weights).sum(dim=1) / weights.sum(dim=1)).float().cpu()


def _distance(
    plan: MergePlan, group: str, base: dict[_Place, Tensor], expert: dict[_Place, Tensor]
) -> float:
    parts = [plan.parts[name] for name in plan.tensors_of(group)]
    places = {_place(part) for part in parts if part.kind != "tower"}
    if not places:
        return 0.0  # a prompt of text passes no tower
    cosine = torch.nn.functional.cosine_similarity
    return fmean(float((1 - cosine(base[p], expert[p], dim=1)).mean()) for p in places)


def _place(part: Part) -> _Place:
    return part.kind if part.index is None else part.index
