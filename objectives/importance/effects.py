"""Measured effects: how much one layer alone changes what the model says next."""

import gc
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import Checkpoint, tensor_table
from ..evaluation.backends.chat import Chat
from ..evaluation.backends.loading import default_device, load_expert, load_model
from ..merging import MergeSettings, ModuleSink


def layer_effects(
    parents: Sequence[Path],
    prompts: Sequence[tuple[str, bool]],
    dtype: str = "float32",
    batch_size: int = 8,
    chat: Chat | None = None,
) -> list[float]:
    """Return what changes if one layer alone is another parent's, for every layer.

    The divergence (Jensen and Shannon's, in nats) between the distributions of the first token of
    an answer: of the base, and of the base with this layer of an expert; of the expert, and of
    the expert with this layer of the base. Mean over prompts, both ends and experts. All parents
    and a copy of the base are in memory, as for a search; every layer passes the prompts twice
    for each expert.

    Args:
        parents: Directories, base first; experts may be adapters.
        prompts: Messages, each with whether the chat template is applied. Of no split that a
            candidate is measured on.
        dtype: Of the models.
        batch_size: Prompts at once.
        chat: How candidates will be asked. Defaults to None: by the base's template.

    Returns:
        One number a layer, in [0, ln 2].
    """
    asked = _Asked(parents, prompts, dtype, batch_size, chat or Chat(parents[0]))
    first = [asked.answers(asked.parent(number)) for number in range(len(parents))]
    effects = []
    for layer in asked.layers:
        changes = []
        for k in range(1, len(parents)):
            for whole, other in ((0, k), (k, 0)):
                changed = asked.parent(whole) | {layer: asked.unit(other)}
                changes.append(_divergence(first[whole], asked.answers(changed)))
        effects.append(fmean(changes))
    del asked
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # an engine may start next, in another process
    return effects


class _Asked:
    """A live merge, and the prompts that it is asked."""

    def __init__(
        self,
        parents: Sequence[Path],
        prompts: Sequence[tuple[str, bool]],
        dtype: str,
        batch_size: int,
        chat: Chat,
    ) -> None:
        device, self._n_experts = default_device(), len(parents) - 1
        settings = MergeSettings(embeddings="search", head="search", n_experts=self._n_experts)
        self._chat, table = chat, tensor_table(Checkpoint(parents[0]))
        self._model: Any = load_model(parents[0], dtype, device)
        experts = [load_expert(path, parents[0], dtype, device) for path in parents[1:]]
        self._sink = ModuleSink(self._model, experts, settings, table.tied, table)
        rendered = [self._chat.render(text, is_chat) for text, is_chat in prompts]
        starts = range(0, len(rendered), batch_size)
        self._batches = [rendered[start : start + batch_size] for start in starts]

    @property
    def layers(self) -> list[str]:
        """Variables of the layers, in their order."""
        return [group for group in self._sink.plan.groups if group.startswith("layer_")]

    def unit(self, parent: int) -> tuple[float, ...]:
        """Return the weights of one parent; 0 is the base."""
        return tuple(float(k == parent) for k in range(1, self._n_experts + 1))

    def parent(self, parent: int) -> dict[str, tuple[float, ...]]:
        """Return the weights of all variables that give one parent."""
        return dict.fromkeys(self._sink.plan.groups, self.unit(parent))

    def answers(self, weights: dict[str, tuple[float, ...]]) -> Tensor:
        """Return how probable each first token is, `prompts x vocabulary`-dim."""
        self._sink.write(weights)
        return torch.cat([self._first_tokens(batch) for batch in self._batches])

    def _first_tokens(self, batch: list[list[int]]) -> Tensor:
        # Padded on the left: the last position is every prompt's.
        ids, mask = (part.to(self._model.device) for part in self._chat.padded(batch))
        with torch.inference_mode():
            output = self._model(input_ids=ids, attention_mask=mask, logits_to_keep=1)
        distribution: Tensor = output.logits[:, -1].float().softmax(dim=-1).cpu()
        return distribution


def _divergence(one: Tensor, other: Tensor) -> float:
    """Return Jensen and Shannon's divergence, mean over rows."""
    middle = (one + other) / 2

    def relative(p: Tensor) -> Tensor:
        return torch.where(p > 0, p * (p / middle).log(), 0).sum(dim=-1)

    return float(((relative(one) + relative(other)) / 2).mean())
