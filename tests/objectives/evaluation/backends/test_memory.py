"""Where memory is short, fewer answers are generated together, and they are the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mergefront.errors import SpecError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.evaluation import Completion, Models, Sampling
from mergefront.objectives.evaluation.backends import transformers_backend
from mergefront.objectives.evaluation.backends.likelihood import Pair
from mergefront.objectives.evaluation.backends.memory import BatchSize, tried_first
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.study.spec.inputs import load_inputs
from small_study import write_spec

PROMPTS = [f"{a}+{b}?" for a in range(5) for b in range(8)]
SHORT = Sampling(16)
DRAWN = Sampling(16, temperature=1.0)


@contextmanager
def _loaded(batch_size: BatchSize) -> Iterator[TransformersBackend]:
    backend = TransformersBackend(batch_size, "cpu")
    backend.load(Models(BASE, (EXPERT,), "float32"))
    yield backend
    backend.close()


def _limit(backend: TransformersBackend, rows: int) -> None:
    """Let the model have memory for so many rows, as a small GPU has."""

    def check(module: Any, args: Any, kwargs: Any) -> None:
        if len(kwargs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    backend._model.register_forward_pre_hook(check, with_kwargs=True)


@pytest.mark.parametrize("sampling", [SHORT, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("in_rows", [True, False])
def test_the_number_is_halved_and_the_answers_are_the_same(
    sampling: Sampling, in_rows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_rows:  # models whose answers keep a batch until its longest ends
        monkeypatch.setattr(transformers_backend, "fits", lambda model: False)
    with _loaded(8) as backend:
        expected = backend.generate(PROMPTS, sampling)
    with _loaded("auto") as backend:
        assert backend.batch_size == 64
        _limit(backend, 10)
        ended: dict[int, Completion] = {}

        def finished(index: int, completion: Completion) -> None:
            assert index not in ended  # nobody hears of an answer twice
            ended[index] = completion

        assert backend.generate(PROMPTS, sampling, finished) == expected
        assert ended == dict(enumerate(expected))
        assert backend.batch_size == 8
        assert backend.generate(PROMPTS[:3], sampling) == backend.generate(PROMPTS[:3], sampling)
        assert backend.batch_size == 8  # remembered


def test_likelihoods_and_texts_are_the_same() -> None:
    pairs: list[Pair] = [(prompt, f"{i}") for i, prompt in enumerate(PROMPTS)]
    with _loaded(8) as backend:
        compared, read = backend.loglikelihood(pairs), backend.read(PROMPTS, (1,))
    with _loaded("auto") as backend:
        _limit(backend, 10)
        told: list[int] = []
        found = backend.loglikelihood(pairs, lambda index, likelihood: told.append(index))
        assert sorted(told) == list(range(len(pairs)))
        assert [f.total for f in found] == pytest.approx([c.total for c in compared], rel=1e-5)
        again = backend.read(PROMPTS, (1,))
        assert [r.total for r in again] == pytest.approx([r.total for r in read], rel=1e-5)
        assert backend.batch_size == 8


def test_a_number_that_was_given_stays_and_one_row_must_fit() -> None:
    with _loaded(32) as backend:
        _limit(backend, 10)
        with pytest.raises(torch.OutOfMemoryError):
            backend.generate(PROMPTS, SHORT)
        assert backend.batch_size == 32
    with _loaded("auto") as backend:
        _limit(backend, 0)
        with pytest.raises(torch.OutOfMemoryError):
            backend.generate(PROMPTS, SHORT)
        assert backend.batch_size == 1


def test_another_error_is_no_lack_of_memory() -> None:
    def fail(module: Any, args: Any) -> None:
        raise RuntimeError("shapes do not fit")

    with _loaded("auto") as backend:
        backend._model.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="shapes do not fit"):
            backend.generate(PROMPTS, SHORT)
        assert backend.batch_size == 64


def test_a_spec_may_leave_it_open_unless_times_are_measured(tmp_path: Path) -> None:
    path = write_spec(tmp_path, evaluation={"batch_size": "auto"})
    (number := tmp_path / "number").mkdir()
    fixed = load_inputs(write_spec(number))
    assert load_inputs(path).fingerprint() == fixed.fingerprint()
    content = yaml.safe_load(path.read_text())
    content["objectives"] = [{"metric": "accuracy"}, {"metric": "latency"}]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(SpecError, match="a number instead of 'auto'"):
        load_inputs(path)


@pytest.mark.parametrize(("has_gpu", "n"), [(True, 256), (False, 64)])
def test_estimates_are_for_what_auto_tries_here(
    has_gpu: bool, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert tried_first() == n
    assert (tried_first("cuda:1"), tried_first("cpu")) == (256, 64)
