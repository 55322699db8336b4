"""Generation and counting with the demo pair."""

from collections.abc import Iterator

import pytest
import torch

from backend_suite import LONG, MODELS, PROMPTS, BackendSuite, become
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.evaluation import Models
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import MergeSettings


@pytest.fixture(scope="module")
def backend() -> Iterator[TransformersBackend]:
    backend = TransformersBackend(batch_size=3, device="cpu")
    backend.load(MODELS)
    yield backend
    backend.close()


class TestTransformersBackend(BackendSuite):
    """The suite of all backends."""


def test_answers_do_not_depend_on_batch_size(backend: TransformersBackend) -> None:
    become(backend, 0.6)
    together = backend.generate(PROMPTS, LONG)
    other = TransformersBackend(batch_size=64, device="cpu")
    other.load(MODELS)
    become(other, 0.6)
    assert other.generate(PROMPTS, LONG) == together


def test_prompts_are_rendered_by_the_chat_template_with_one_opening_token(
    backend: TransformersBackend,
) -> None:
    assert backend._chat.render("3?") == [1, 8, 20]  # <bos> from the template, "3", "?"


def test_ends_are_the_parents(backend: TransformersBackend) -> None:
    for directory, weight in ((BASE, 0.0), (EXPERT, 1.0)):
        become(backend, weight)
        fresh = TransformersBackend(device="cpu")
        fresh.load(Models(directory, (), "float32", MergeSettings(n_experts=0)))
        assert fresh.checksum() == backend.checksum()


def test_apply_overwrites_in_place(backend: TransformersBackend) -> None:
    addresses = [parameter.data_ptr() for parameter in backend._model.parameters()]
    become(backend, 0.3)
    assert [parameter.data_ptr() for parameter in backend._model.parameters()] == addresses


def test_no_gradients_are_kept(backend: TransformersBackend) -> None:
    assert not any(parameter.requires_grad for parameter in backend._model.parameters())
    assert not torch.is_inference_mode_enabled()
