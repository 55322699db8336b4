"""Generation and counting with the demo pair."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backend_suite import LONG, MODELS, PROMPTS, BackendSuite, become
from mergefront.errors import EvaluationError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.evaluation import Models
from mergefront.objectives.evaluation.backends.backend import as_answer
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import MergeSettings

FITS = "mergefront.objectives.evaluation.backends.transformers_backend.fits"


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


def test_a_candidate_that_is_not_finite_fails_and_the_next_one_is_measured() -> None:
    backend = TransformersBackend(device="cpu")
    backend.load(replace(MODELS, dtype="float16"))
    become(backend, 0.4)
    expected = backend.generate(PROMPTS, LONG)
    with pytest.raises(EvaluationError, match="Weights must be finite, but 'model"):
        become(backend, 1e7)
    become(backend, 0.4)
    assert backend.generate(PROMPTS, LONG) == expected


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("rows", [True, False])
def test_logits_that_are_not_finite_fail_the_candidate_alone(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch, rows: bool, temperature: float
) -> None:
    """Its keys and values are no numbers either, and must not be left to the next candidate."""
    monkeypatch.setattr(FITS, lambda model: rows)
    become(backend, 0.4)
    expected = backend.generate(PROMPTS, LONG)
    weight = backend._sink.parameters["model.layers.0.self_attn.v_proj.weight"]
    weight.data.fill_(torch.inf)
    with pytest.raises(EvaluationError, match="logits are not finite"):
        backend.generate(["4a-4b*2c+4d+0e+0?" * 2] * 3, replace(LONG, temperature=temperature))
    with pytest.raises(EvaluationError, match="logits are not finite"):
        as_answer(backend.loglikelihood([("1+1", "2")]))
    become(backend, 0.4)
    assert backend.generate(PROMPTS, LONG) == expected


def test_the_end_of_a_prompt_is_no_part_of_a_stop_text(
    backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(backend, 1.0)
    free = backend.generate(PROMPTS, LONG)
    expected = backend.generate(PROMPTS, replace(LONG, stop=("a9",)))
    assert [answer.text[:9] for answer in (free[0], expected[0])] == ["<think>a9"] * 2
    assert free[0].n_tokens > expected[0].n_tokens == 3
    monkeypatch.setattr(FITS, lambda model: False)
    for size in (1, 3):
        backend._room.n = size
        assert backend.generate(PROMPTS, replace(LONG, stop=("?<think>",))) == free
        assert backend.generate(PROMPTS, replace(LONG, stop=("?<think>", "a9"))) == expected


def test_a_tokenizer_without_special_tokens_pads_with_a_stop_token(
    tmp_path: Path, backend: TransformersBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FITS, lambda model: False)
    become(backend, 0.0)
    expected = backend.generate(PROMPTS, LONG)
    shutil.copytree(BASE, tmp_path / "base")
    path = tmp_path / "base" / "tokenizer_config.json"
    told = {k: v for k, v in json.loads(path.read_text()).items() if not k.endswith("_token")}
    path.write_text(json.dumps(told))
    template = tmp_path / "base" / "chat_template.jinja"
    template.write_text(template.read_text().replace("{{ bos_token }}", "<bos>"))
    bare = TransformersBackend(batch_size=3, device="cpu")
    bare.load(replace(MODELS, base=tmp_path / "base"))
    assert bare._chat.tokenizer.pad_token_id is bare._chat.tokenizer.eos_token_id is None
    become(bare, 0.0)
    assert bare.generate(PROMPTS, LONG) == expected
