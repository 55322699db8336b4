"""Whole distributions over the vocabulary, heard where vLLM's runner asks the model for them.

Runs in vLLM's workers. vLLM hands out probabilities of single words; the distributions that they
come from pass the model's `compute_logits`, in both of vLLM's runners.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..likelihood import Window, divergence, total_of

# Positions that are compared at once: a whole text's may not fit a GPU beside vLLM's memory.
_POSITIONS = 256


class Listener:
    """Hears the logits of one prompt at a time, and tells how far parents' are from the model's.

    Args:
        model: The live model, as vLLM calls it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._heard: list[Tensor] = []
        self._kept: dict[tuple[int, int], Tensor] = {}
        computed = self._model.compute_logits

        def compute_logits(*given: Any, **named: Any) -> Tensor | None:
            return self._note(computed(*given, **named))

        self._model.compute_logits = compute_logits

    def close(self) -> None:
        """Leave the model as it was."""
        del self._model.compute_logits

    def forget(self) -> None:
        """Forget what parents made of earlier prompts."""
        self._kept.clear()

    def keep(self, parent: int, place: int, ids: Sequence[int], n: int) -> None:
        """Keep what the live model, which is a parent now, made of a prompt.

        Args:
            parent: 0 is the base, 1 the first expert.
            place: Of the prompt.
            ids: The prompt.
            n: Tokens of it whose distributions count, the last ones.
        """
        if self._heard:  # nothing on the ranks that make no logits
            self._kept[parent, place] = self._take(ids, n)

    def compare(self, place: int, ids: Sequence[int], n: int) -> tuple[float, dict[int, float]]:
        """Return how the live model reads a prompt that parents have read.

        Returns:
            Logarithm of the tokens' probability, and for each parent `KL(parent || model)`, both
            summed over tokens, in nats. No parent at all on a rank that makes no logits.
        """
        if not self._heard:
            return 0.0, {}
        own = self._take(ids, n)
        theirs = {parent: kept for (parent, of), kept in self._kept.items() if of == place}
        total = total_of(own, Window(place, tuple(ids), n))
        return total, {parent: self._divergence(kept, own) for parent, kept in theirs.items()}

    def _note(self, logits: Tensor | None) -> Tensor | None:
        # One row is what the next word is drawn from, and not of the prompt.
        if logits is not None and len(logits) > 1:
            self._heard.append(logits.detach().cpu())
        return logits

    def _take(self, ids: Sequence[int], n: int) -> Tensor:
        first = len(ids) - n - 1
        # A copy: a view would keep what was made of the context.
        rows = torch.cat(self._heard)[first : first + n].clone()
        self._heard.clear()
        return rows

    def _divergence(self, parent: Tensor, own: Tensor) -> float:
        device = next(self._model.parameters()).device
        pieces = [slice(at, at + _POSITIONS) for at in range(0, len(own), _POSITIONS)]
        return sum(divergence(parent[at].to(device), own[at].to(device)) for at in pieces)
