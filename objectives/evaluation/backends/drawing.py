"""Draw the next tokens: one number between 0 and 1 an answer and step, from the answer's own seed.

The same prompt and seed give the same answer in any row, batch and worker. Logits are processed
by transformers' own classes in transformers' own order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....errors import EvaluationError
from .backend import Sampling


@dataclass
class Draws:
    """One answer's stream of random numbers.

    Args:
        seed: Of the answer.
    """

    seed: int
    _generator: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=self.seed))

    def next(self) -> float:
        """Return the next number within [0, 1)."""
        return float(self._generator.random())


class Chooser:
    """Chooses the next token of every answer from its logits.

    Args:
        sampling: How.
    """

    def __init__(self, sampling: Sampling) -> None:
        from transformers import RepetitionPenaltyLogitsProcessor

        self.sampling = sampling
        penalty = sampling.repetition_penalty
        self._penalty: Any = None
        if penalty != 1.0:
            self._penalty = RepetitionPenaltyLogitsProcessor(penalty=penalty)
        self._warpers = _warpers(sampling)

    @property
    def is_greedy(self) -> bool:
        """Whether it takes the most probable token, whatever came before."""
        return self._penalty is None and not self.sampling.is_random

    def choose(
        self, logits: Tensor, seen: Sequence[Sequence[int]], draws: Sequence[Draws]
    ) -> Tensor:
        """Return one token a row.

        Args:
            logits: Rows x tokens.
            seen: Token ids of each row's prompt and answer so far.
            draws: Of each row.

        Raises:
            EvaluationError: If a row's largest logit is not finite.
        """
        best = logits.argmax(dim=-1)
        _check_finite(logits, best)
        if self.is_greedy:
            return best
        logits = logits.float()
        if self._penalty is not None:
            logits = self._penalty(_rectangle(seen, logits.device), logits)
        if not self.sampling.is_random:
            return logits.argmax(dim=-1)
        for warper in self._warpers:
            logits = warper(None, logits)
        # In the order of probability: a tiny change of a logit moves no token across others.
        probabilities, order = logits.double().softmax(dim=-1).sort(dim=-1, descending=True)
        reached = probabilities.cumsum(dim=-1)
        numbers = torch.tensor([d.next() for d in draws], dtype=torch.float64)
        at = numbers.to(logits.device)[:, None] * reached[:, -1:]
        places = torch.searchsorted(reached, at, right=True)
        most = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
        return order.gather(-1, places.minimum(most))[:, 0]


def _check_finite(logits: Tensor, best: Tensor) -> None:
    """Check that each row's largest logit is a number; those of words never said are -inf."""
    if not bool(logits.gather(-1, best[:, None]).isfinite().all()):
        raise EvaluationError(
            "A model must give finite logits, but this candidate's logits are not finite "
            f"({logits.dtype}). Lower the merge weights (`merge.bounds`), or choose another "
            "`models.dtype`."
        )


def _warpers(sampling: Sampling) -> list[Any]:
    """Return what changes probabilities, in transformers' order."""
    from transformers import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    warpers: list[Any] = []
    if sampling.temperature not in (0.0, 1.0):
        warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(float(sampling.top_p)))
    if sampling.min_p > 0:
        warpers.append(MinPLogitsWarper(float(sampling.min_p)))
    return warpers


def _rectangle(seen: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """Return ids of several lengths as one array; a row is filled with its own first token."""
    longest = max(map(len, seen))
    rows = [[*ids, *[ids[0]] * (longest - len(ids))] for ids in seen]
    return torch.tensor(rows, device=device)


def one_hot(tokens: Tensor, like: Tensor) -> Tensor:
    """Return logits of which the given tokens are the largest: for `generate`, which is greedy."""
    chosen = torch.full_like(like, -torch.inf)
    return chosen.scatter(-1, tokens[:, None], 0.0)
