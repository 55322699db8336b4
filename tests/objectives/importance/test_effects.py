"""Measured effects: what one layer alone changes."""

from math import log
from pathlib import Path

import pytest
import torch

from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.importance import layer_effects
from mergefront.objectives.importance.effects import _divergence
from tiny_models import store, write_pair

PROMPTS = [("3*4?", True), ("a", True), ("cig?", False)]


def test_the_divergence_of_two_distributions() -> None:
    one, other = torch.tensor([[1.0, 0.0], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [0.5, 0.5]])
    assert _divergence(one, other) == pytest.approx(log(2) / 2)  # ln 2 and 0
    # p = (3/4, 1/4), q = (1/4, 3/4): the middle is even, so both are ln 2 less p's entropy.
    entropy = -(0.75 * log(0.75) + 0.25 * log(0.25))
    one, other = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])
    assert _divergence(one, other) == pytest.approx(log(2) - entropy)


def test_a_layer_that_is_equal_in_both_parents_has_no_effect(tmp_path: Path) -> None:
    models = write_pair(tmp_path, "dense", num_hidden_layers=3)
    base = Checkpoint(models.base)
    equal = "model.layers.1."
    store(
        models.experts[0],
        lambda name, values: base.tensor(name).load() if name.startswith(equal) else values,
    )
    parents = [models.base, *models.experts]
    first, second, third = layer_effects(parents, PROMPTS, batch_size=2)
    assert second == 0 < min(first, third)
    assert max(first, third) <= log(2)
    # Batches and order change nothing but the last bits.
    again = layer_effects([*parents, parents[1]], PROMPTS[::-1], batch_size=3)
    assert again == pytest.approx([first, second, third], rel=1e-4)
