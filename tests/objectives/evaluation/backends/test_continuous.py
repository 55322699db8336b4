"""Rows that are refilled: the same tokens as `generate`, fewer steps."""

from typing import Any

import pytest
import torch

from mergefront.examples.demo import EXPERT, QUESTIONS
from mergefront.objectives.evaluation import Models, Sampling
from mergefront.objectives.evaluation.backends.continuous_batching import Answering, Rows, fits
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import MergeSettings
from small_study import read_json_lines

PROMPTS = [line["prompt"] for line in read_json_lines(QUESTIONS / "search.jsonl")[:60]]


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    backend = TransformersBackend(batch_size=7, device="cpu")
    backend.load(Models(EXPERT, (), "float32", MergeSettings(n_experts=0)))
    return backend


def _in_batches(backend: TransformersBackend) -> TransformersBackend:
    """Return the same backend without rows, as for models that they do not fit."""
    other = TransformersBackend(batch_size=7, device="cpu")
    other.__dict__ = {**backend.__dict__, "_rows": None}
    return other


@pytest.mark.parametrize("sampling", [Sampling(48), Sampling(9), Sampling(48, stop=(";b", "=7"))])
def test_the_same_answers_as_generate(backend: TransformersBackend, sampling: Sampling) -> None:
    assert backend.generate(PROMPTS, sampling) == _in_batches(backend).generate(PROMPTS, sampling)


def test_a_second_run_in_the_same_memory_gives_the_same(backend: TransformersBackend) -> None:
    first = backend.generate(PROMPTS, Sampling(48))
    backend.generate(PROMPTS[::-1], Sampling(20))
    assert backend.generate(PROMPTS, Sampling(48)) == first


def test_a_long_answer_does_not_hold_the_others(backend: TransformersBackend) -> None:
    """One answer of 200 tokens among sixty of 2: a batch's steps times batches would be 1800."""
    n_steps = 0

    def is_over(ids: list[int]) -> bool:
        return len(ids) >= (100 if ids is long.ids else 2)

    rows = Rows(backend._model, 7)
    long: Any = None
    started: list[Answering] = []
    step, read = rows._step, rows._read

    def counted(active: list[Answering]) -> None:
        nonlocal n_steps
        n_steps += 1
        step(active)

    def noted(new: list[Answering], first_row: int) -> None:
        nonlocal long
        started.extend(new)
        long = next((a for a in started if a.index == 30), new[0])
        read(new, first_row)

    rows._step, rows._read = counted, noted  # type: ignore[method-assign]
    ended: list[int] = []
    rows.answer([[1, 8, 20]] * 60, 100, is_over, lambda a: ended.append(a.index))
    assert sorted(ended) == list(range(60))
    assert ended[-1] == 30
    assert n_steps < 110


def test_answers_carry_their_times(backend: TransformersBackend) -> None:
    answers = backend.generate(PROMPTS, Sampling(48))
    assert all(answer.seconds > 0 for answer in answers)


def test_models_with_windows_are_run_in_batches(backend: TransformersBackend) -> None:
    config = backend._model.config
    assert fits(backend._model)
    before = config.layer_types
    try:
        config.layer_types = [*before[:-1], "sliding_attention"]
        assert not fits(backend._model)
    finally:
        config.layer_types = before


def test_memory_grows_when_answers_do(backend: TransformersBackend) -> None:
    rows = Rows(backend._model, 2)
    lengths: list[int] = []
    rows.answer([[1, 8, 20]] * 2, 90, lambda ids: False, lambda a: lengths.append(len(a.ids)))
    assert lengths == [90, 90]
    assert rows._layers[0].keys.shape[2] == 93  # not twice the first 64: nothing is longer
    assert torch.isfinite(rows._layers[0].keys).all()
