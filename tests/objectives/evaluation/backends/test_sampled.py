"""Answers that are drawn: from their own seeds, whatever they are generated with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mergefront.errors import EvaluationError
from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.evaluation import METRICS, Models, Sampling, TaskSource, load_task
from mergefront.objectives.evaluation.backends.drawing import Chooser, Draws
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.cache import AnswerCache
from small_study import read_json_lines

PROMPTS = [line["prompt"] for line in read_json_lines(QUESTIONS / "search.jsonl")[:8]]
DRAWN = Sampling(24, temperature=1.2, top_p=0.98, top_k=20, repetition_penalty=1.05)
SEEDS = [1000 + i for i in range(len(PROMPTS))]


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    backend = TransformersBackend(batch_size=3, device="cpu")
    backend.load(Models(BASE, (EXPERT,), "float32"))
    backend.apply(backend.plan.group_weights(backend.plan.uniform(0.6)))
    return backend


def _like(backend: TransformersBackend, batch_size: int, rows: bool) -> TransformersBackend:
    """Return a backend with the same models and another batch size, with rows or without."""
    from mergefront.objectives.evaluation.backends.continuous_batching import Rows

    other = TransformersBackend(batch_size=batch_size, device="cpu")
    made = Rows(backend._model, batch_size) if rows else None
    other.__dict__ = {**backend.__dict__, "batch_size": batch_size, "_rows": made}
    return other


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_the_same_answers_in_any_batch_and_order(
    backend: TransformersBackend, batch_size: int, rows: bool
) -> None:
    expected = backend.generate(PROMPTS, DRAWN, seeds=SEEDS)
    other = _like(backend, batch_size, rows)
    given = other.generate(PROMPTS[::-1], DRAWN, seeds=SEEDS[::-1])
    assert given[::-1] == expected


def test_another_seed_is_another_answer_and_temperature_0_is_greedy(
    backend: TransformersBackend,
) -> None:
    greedy = backend.generate(PROMPTS, Sampling(24))
    drawn = backend.generate(PROMPTS, DRAWN, seeds=SEEDS)
    again = backend.generate(PROMPTS, DRAWN, seeds=[seed + 99 for seed in SEEDS])
    assert drawn != greedy
    assert drawn != again
    cold = replace(DRAWN, temperature=0.0, repetition_penalty=1.0)
    assert backend.generate(PROMPTS, cold, seeds=SEEDS) == greedy
    one = Sampling(24, temperature=2.0, top_k=1)
    assert backend.generate(PROMPTS, one, seeds=SEEDS) == greedy


def test_a_penalty_on_greedy_answers_is_that_of_transformers(backend: TransformersBackend) -> None:
    penalized = Sampling(24, repetition_penalty=8.0)
    answers = backend.generate(PROMPTS[:4], penalized)
    assert answers != backend.generate(PROMPTS[:4], Sampling(24))
    chat, model = backend._chat, backend._model
    for prompt, answer in zip(PROMPTS[:4], answers, strict=True):
        ids = torch.tensor([chat.render(prompt)])
        output = model.generate(input_ids=ids, max_new_tokens=24, repetition_penalty=8.0)
        assert chat.completion(output[0, ids.shape[1] :].tolist(), penalized) == answer


def _shares(sampling: Sampling, logits: torch.Tensor, n: int = 4000) -> NDArray[np.float64]:
    chooser = Chooser(sampling)
    rows = logits.expand(n, -1)
    tokens = chooser.choose(rows, [[0]] * n, [Draws(seed) for seed in range(n)])
    counts: NDArray[np.float64] = np.bincount(tokens.numpy(), minlength=logits.shape[-1]) / n
    return counts


@pytest.mark.parametrize(
    "changes", [{}, {"top_p": 0.6}, {"top_k": 3}, {"min_p": 0.3}, {"top_k": 4, "top_p": 0.7}]
)
def test_tokens_come_as_often_as_transformers_says(
    backend: TransformersBackend, changes: dict[str, Any]
) -> None:
    """Against the probabilities that `generate` itself would draw from."""
    from transformers import GenerationConfig, LogitsProcessorList

    logits = torch.tensor([[2.0, 1.5, 1.4, 0.3, -0.2, -1.0, -3.0]])
    sampling = replace(Sampling(1, temperature=0.8), **changes)
    config = GenerationConfig(do_sample=True, **{"top_k": 0, "temperature": 0.8, **changes})
    make: Any = backend._model._get_logits_processor
    processors = make(config, 1, None, None, LogitsProcessorList(), device="cpu")
    expected = processors(torch.tensor([[0]]), logits).softmax(-1)[0].numpy()
    found = _shares(sampling, logits)
    assert (found[expected == 0] == 0).all()
    assert found == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(4000))


def _objective(
    backend: TransformersBackend, sampling: Sampling, cache: AnswerCache | None = None
) -> MergeObjective:
    task = load_task(TaskSource("demo", {"search": QUESTIONS / "importance.jsonl"}))
    questions = questions_of([task], "search")[:12]
    metrics = [METRICS["accuracy"], METRICS["tokens"]]
    return MergeObjective(backend, backend.plan, questions, metrics, sampling, cache=cache)


def test_repeats_are_answers_of_one_question_and_known_by_their_repeat(
    backend: TransformersBackend, tmp_path: Path
) -> None:
    sampling = replace(DRAWN, repeats=3, seed=5)
    params = backend.plan.uniform(0.6)
    cache = AnswerCache(tmp_path / "answers.db", "scope")
    plain = _objective(backend, sampling).measure(params)
    first = _objective(backend, sampling, cache).measure(params)
    assert first.answers == plain.answers
    assert [answer.repeat for answer in first.answers] == [0, 1, 2] * 12
    attributes = first.attributes()
    assert (attributes["n_questions"], attributes["n_answers"]) == (12, 36)
    assert set(attributes["variances"]) == {"accuracy", "tokens"}  # type: ignore[call-overload]
    more = _objective(backend, replace(sampling, repeats=4), cache).measure(params)
    assert more.n_cached == 36
    assert [a for a in more.answers if a.repeat < 3] == list(first.answers)
    texts = {answer.question_id: set[str]() for answer in first.answers}
    for answer in first.answers:
        texts[answer.question_id].add(answer.text)
    assert max(map(len, texts.values())) > 1
    other = _objective(backend, replace(sampling, seed=6), cache).measure(params)
    assert other.n_cached == 0
    assert [a.text for a in other.answers] != [a.text for a in first.answers]
    greedy = _objective(backend, Sampling(24), cache).measure(params)
    assert greedy.n_cached == 0


def test_numbers_of_repeats_are_their_means(backend: TransformersBackend) -> None:
    objective = _objective(backend, replace(DRAWN, repeats=2))
    measured = objective.measure(backend.plan.uniform(0.6))
    tokens = [answer.n_tokens for answer in measured.answers]
    numbers = objective.numbers(measured.answers)
    assert numbers[1] == [np.mean(tokens[i : i + 2]) for i in range(0, 24, 2)]
    assert objective.n_answers == 24


def test_seeds_are_those_of_study_question_and_repeat() -> None:
    sampling = Sampling(8, temperature=1.0, seed=3)
    seeds = {
        replace(sampling, seed=seed).seed_of(question, repeat)
        for seed in (0, 3)
        for question in ("t/1", "t/2")
        for repeat in (0, 1)
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert sampling.seed_of("t/1", 0) == 4554110090995398805
    assert json.dumps(sampling.described())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("sampling", [Sampling(1), DRAWN, Sampling(1, repetition_penalty=1.1)])
def test_logits_that_are_not_finite_choose_no_token(sampling: Sampling, value: float) -> None:
    logits = torch.zeros(2, 10)
    logits[:, 3] = -torch.inf  # a word that is never said
    chosen = Chooser(sampling).choose(logits, [[1], [1]], [Draws(1), Draws(2)])
    assert 3 not in chosen.tolist()
    logits[1, 5] = value
    with pytest.raises(EvaluationError, match="logits are not finite"):
        Chooser(sampling).choose(logits, [[1], [1]], [Draws(1), Draws(2)])
