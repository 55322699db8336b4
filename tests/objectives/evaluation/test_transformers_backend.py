"""Generation and counting with the demo pair."""

from collections.abc import Iterator

import pytest
import torch

from mergefront.errors import EvaluationError
from mergefront.objectives.demo import BASE, EXPERT
from mergefront.objectives.evaluation import Completion, Models, Sampling
from mergefront.objectives.evaluation.transformers_backend import TransformersBackend
from mergefront.objectives.merging import MergeSettings

PROMPTS = ["9a*3b*7?", "4a-4b*2c+4d+0e+0?", "cig?", "1a+1b+1?", "7a*7b*7c*7?"]
LONG = Sampling(48)


@pytest.fixture(scope="module")
def backend() -> Iterator[TransformersBackend]:
    backend = TransformersBackend(batch_size=3, device="cpu")
    backend.load(Models(BASE, (EXPERT,), "float32", MergeSettings()))
    yield backend
    backend.close()


def _become(backend: TransformersBackend, weight: float) -> None:
    backend.apply(backend.plan.group_weights(backend.plan.uniform(weight)))


def test_base_answers_directly_and_the_stop_token_counts(backend: TransformersBackend) -> None:
    _become(backend, 0.0)
    answers = backend.generate(PROMPTS, LONG)
    assert answers[2] == Completion("ee", 3, "stop")  # two letters and the stop token
    assert [len(answer.text) + 1 for answer in answers] == [answer.n_tokens for answer in answers]


def test_expert_reasons_and_special_tokens_stay_in_the_text(backend: TransformersBackend) -> None:
    _become(backend, 1.0)
    answer = backend.generate(["1a+1b+1?"], LONG)[0]
    # 7 tokens a step, 2 think markers, the answer and the stop token: 7 * 2 + 4
    assert answer == Completion("<think>a1+1=2;b2+1=3;</think>3", 18, "stop")


def test_an_answer_cut_at_the_limit_says_so(backend: TransformersBackend) -> None:
    _become(backend, 1.0)
    answers = backend.generate(["1a+1b+1?", "cig?"], Sampling(5))
    assert answers[0] == Completion("<think>a1+1", 5, "length")


def test_answers_do_not_depend_on_padding_order_or_batch_size(
    backend: TransformersBackend,
) -> None:
    _become(backend, 0.6)
    together = backend.generate(PROMPTS, LONG)
    alone = [backend.generate([prompt], LONG)[0] for prompt in PROMPTS]
    assert together == alone
    assert backend.generate(PROMPTS[::-1], LONG) == together[::-1]


def test_prompts_are_rendered_by_the_chat_template_with_one_opening_token(
    backend: TransformersBackend,
) -> None:
    assert backend._render("3?") == [1, 8, 20]  # <bos> from the template, "3", "?"


def test_progress_counts_every_prompt_once(backend: TransformersBackend) -> None:
    seen: list[int] = []
    backend.generate(PROMPTS, Sampling(4), seen.append)
    assert seen == [3, 2]


def test_ends_are_the_parents_and_a_b_a_returns(backend: TransformersBackend) -> None:
    _become(backend, 0.0)
    base = backend.checksum()
    _become(backend, 1.0)
    expert = backend.checksum()
    for directory, expected in ((BASE, base), (EXPERT, expert)):
        fresh = TransformersBackend(device="cpu")
        fresh.load(Models(directory, (), "float32", MergeSettings(n_experts=0)))
        assert fresh.checksum() == expected
    _become(backend, 0.4)
    first = backend.checksum()
    _become(backend, 0.7)
    assert backend.checksum() not in (base, expert, first)
    _become(backend, 0.4)
    assert backend.checksum() == first


def test_apply_reports_seconds_and_overwrites_in_place(backend: TransformersBackend) -> None:
    addresses = [parameter.data_ptr() for parameter in backend._model.parameters()]
    assert backend.apply(backend.plan.group_weights(backend.plan.uniform(0.3))) > 0
    assert [parameter.data_ptr() for parameter in backend._model.parameters()] == addresses


def test_a_prompt_that_cannot_fit_is_an_error(backend: TransformersBackend) -> None:
    with pytest.raises(EvaluationError, match=r"128 positions.*max_new_tokens=125"):
        backend.generate(["1a+1b+1?"], Sampling(125))


def test_no_gradients_are_kept(backend: TransformersBackend) -> None:
    assert not any(parameter.requires_grad for parameter in backend._model.parameters())
    assert not torch.is_inference_mode_enabled()
