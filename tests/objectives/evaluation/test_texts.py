"""Divergences from parents and perplexities, on texts that are read."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mergefront.errors import EvaluationError, SpecError
from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.evaluation import (
    METRICS,
    Answer,
    Constraint,
    Models,
    ObjectiveMetric,
    Sampling,
    Task,
    TaskSource,
    load_task,
)
from mergefront.objectives.evaluation.backends.backend import as_text_answer
from mergefront.objectives.evaluation.backends.likelihood import Reading
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.cache import AnswerCache
from mergefront.objectives.evaluation.tasks import load_texts
from small_study import read_json_lines

N = 12
FAR = [METRICS["kl/base"], METRICS["kl/expert"], METRICS["perplexity"]]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    lines = read_json_lines(QUESTIONS / "search.jsonl")[:N]
    return [line["prompt"] + line["answer"] for line in lines]


@pytest.fixture(scope="module")
def task(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Task:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return load_texts(TaskSource("general", {"search": path}, prompt="{text}"))


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def backend(request: pytest.FixtureRequest) -> Iterator[TransformersBackend]:
    backend = TransformersBackend(batch_size=5, device="cpu")
    backend.load(Models(BASE, (EXPERT,), request.param))
    yield backend
    backend.close()


def _become(backend: TransformersBackend, weight: float) -> dict[str, float]:
    params = backend.plan.uniform(weight)
    backend.apply(backend.plan.group_weights(params))
    return params


def _logs(directory: Path, text: str) -> tuple[torch.Tensor, list[int]]:
    """Return log-probabilities (tokens x words) by a plain forward pass, and the tokens."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    ids = tokenizer.encode(text, add_special_tokens=False)
    prefix = tokenizer.bos_token_id
    prefix = tokenizer.eos_token_id if prefix is None else prefix
    with torch.inference_mode():
        logits = model(torch.tensor([[prefix, *ids[:-1]]])).logits[0]
    return logits.double().log_softmax(-1), ids


def test_a_model_that_is_a_parent_is_exactly_no_distance_from_it(
    backend: TransformersBackend, texts: list[str]
) -> None:
    for weight, near, far in ((0.0, 0, 1), (1.0, 1, 0)):
        _become(backend, weight)
        before = backend.checksum()
        found = backend.read(texts, (0, 1))
        assert {reading.divergences[near] for reading in found} == {0.0}
        assert min(reading.divergences[far] for reading in found) > 0
        assert backend.checksum() == before


def test_divergences_are_those_of_plain_forward_passes(
    backend: TransformersBackend, texts: list[str]
) -> None:
    if backend._sink.parameters["lm_head.weight"].dtype != torch.float32:
        pytest.skip("the formula is checked in float32")
    _become(backend, 1.0)
    for text, reading in zip(texts[:3], backend.read(texts[:3], (0,)), strict=True):
        p, ids = _logs(BASE, text)
        q, _ = _logs(EXPERT, text)
        assert reading.n_tokens == len(ids)
        assert reading.divergences[0] == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4)
        likelihood = float(q[torch.arange(len(ids)), ids].sum())
        assert reading.total == pytest.approx(likelihood, rel=1e-4)
        assert backend.loglikelihood([("", text)])[0].total == pytest.approx(likelihood)


def test_long_texts_are_read_in_windows(
    backend: TransformersBackend, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "mergefront.objectives.evaluation.backends.likelihood.TEXT_WINDOW"
    monkeypatch.setattr(module, 4)
    _become(backend, 0.5)
    whole = backend.read(texts, (0, 1))
    assert [r.n_tokens for r in whole] == [len(text) for text in texts]  # a token a character
    assert all(r.divergences[0] > 0 and r.divergences[1] > 0 for r in whole)


def test_objectives_are_means_over_tokens_and_kept(
    backend: TransformersBackend, task: Task, tmp_path: Path
) -> None:
    cache = AnswerCache(tmp_path / "answers.db", "test")
    limit = Constraint(ObjectiveMetric(METRICS["kl/base"]), 1, 0.1)
    objective = MergeObjective(
        backend,
        backend.plan,
        questions_of([task], "search"),
        FAR,
        Sampling(8),
        constraints=[limit],
        cache=cache,
    )
    at_base = objective.measure(backend.plan.uniform(0.0))
    assert at_base.values[0] == 0.0 and at_base.standard_errors[0] == 0.0
    assert at_base.constraints["kl/base <= 0.1"] == (-0.1, 0.0)
    half = objective.measure(backend.plan.uniform(0.5))
    read = backend.read([q.question.prompt for q in objective.texts], (0, 1))
    n_tokens = sum(r.n_tokens for r in read)
    assert half.values[0] == pytest.approx(sum(r.divergences[0] for r in read) / n_tokens)
    assert half.values[2] == pytest.approx(math.exp(-sum(r.total for r in read) / n_tokens))
    assert min(half.standard_errors) > 0 and half.n_cached == 0
    assert half.attributes()["generated_tokens"] == 0
    again = objective.measure(backend.plan.uniform(0.5))
    assert again.values == half.values and again.n_cached == N
    assert objective.n_answers == N and not objective.questions


def test_questions_and_texts_are_counted_apart(backend: TransformersBackend, task: Task) -> None:
    asked = load_task(TaskSource("sums", {"search": QUESTIONS / "search.jsonl"}))
    questions = [*questions_of([asked], "search")[:4], *questions_of([task], "search")]
    metrics = [METRICS["accuracy"], METRICS["tokens"], METRICS["kl/base"]]
    objective = MergeObjective(backend, backend.plan, questions, metrics, Sampling(24))
    measured = objective.measure(backend.plan.uniform(1.0))
    answers = [answer for answer in measured.answers if answer.task == "sums"]
    assert len(answers) == 4 and len(measured.answers) == 4 + N
    assert measured.values[0] == np.mean([answer.score for answer in answers])
    assert measured.values[1] == np.mean([answer.n_tokens for answer in answers])
    assert set(measured.by_task) == {"accuracy/sums", "tokens/sums", "kl/base/general"}


def test_texts_read_in_other_windows_are_read_again(
    backend: TransformersBackend, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = AnswerCache(tmp_path / "answers.db", "test")
    texts = questions_of([task], "search")
    objective = MergeObjective(backend, backend.plan, texts, FAR, Sampling(8), cache=cache)
    params = backend.plan.uniform(0.5)
    whole = objective.measure(params)
    config = backend._model.config.get_text_config()
    monkeypatch.setattr(config, "max_position_embeddings", 4)
    assert backend.text_window == 4
    cut = objective.measure(params)
    assert cut.n_cached == 0 and cut.values != whole.values
    monkeypatch.undo()
    again = objective.measure(params)
    assert again.n_cached == N and again.values == whole.values


@pytest.mark.parametrize("screen", [False, True])
def test_a_merge_without_numbers_fails(
    backend: TransformersBackend, task: Task, screen: bool
) -> None:
    asked = load_task(TaskSource("sums", {"search": QUESTIONS / "search.jsonl"}))
    questions = [*questions_of([asked], "search")[:2], *questions_of([task], "search")]
    limit = Constraint(ObjectiveMetric(METRICS["kl/base"]), 1, 0.1)
    metrics = [METRICS["tokens"]]  # a number, whatever a model says
    rules = (Sampling(4), (0.0, 1.0), [limit])
    objective = MergeObjective(backend, backend.plan, questions, metrics, *rules)
    with pytest.raises(EvaluationError, match="Weights must be finite"):
        objective.measure(backend.plan.uniform(math.nan), screen=screen)
    found = [replace(_read(nats, 1), task="general") for nats in (1.0, math.nan)]
    with pytest.raises(EvaluationError, match=r"'kl/base <= 0.1' is no number"):
        objective._constraints(found)


def test_questions_are_counted_without_texts(backend: TransformersBackend, task: Task) -> None:
    asked = load_task(TaskSource("sums", {"search": QUESTIONS / "search.jsonl"}))
    sums, texts = questions_of([asked], "search")[:4], questions_of([task], "search")
    drawn = Sampling(4, temperature=1.0, repeats=3)
    alone = MergeObjective(backend, backend.plan, sums, [METRICS["tokens"]], drawn)
    limits = [Constraint(ObjectiveMetric(METRICS[name]), 1, 0.0) for name in ("kl/base", "tokens")]
    beside = MergeObjective(
        backend, backend.plan, [*sums, *texts], alone.metrics, drawn, constraints=limits
    )
    params = backend.plan.uniform(1.0)
    plain, whole = alone.measure(params), beside.measure(params)
    assert (whole.n_questions, whole.attributes()["n_answers"]) == (4, 12)
    # Texts vary in nothing that is asked.
    assert whole.components == plain.components and plain.components
    screened = beside.measure(params, screen=True)
    assert screened.broken == ("kl/base <= 0",) and screened.n_questions == 0
    reads = MergeObjective(backend, backend.plan, texts, [METRICS["kl/base"]], drawn)
    assert reads.measure(params).n_questions == N


def test_an_infinite_violation_is_a_clear_one(backend: TransformersBackend, task: Task) -> None:
    limit = Constraint(ObjectiveMetric(METRICS["perplexity"]), 1, 30.0)
    texts = questions_of([task], "search")
    rules = (Sampling(4), (0.0, 1.0), [limit])
    objective = MergeObjective(backend, backend.plan, texts, [METRICS["kl/base"]], *rules)
    found = [replace(_read(nats, 1), task="general") for nats in (900.0, 800.0)]
    assert objective._constraints(found) == {limit.name: (math.inf, math.inf)}
    assert objective._broken(found) == (limit.name,)


def _read(nats: float, n_tokens: int, cluster: str = "", name: str = "") -> Answer:
    text = as_text_answer(Reading(-nats, n_tokens, {0: nats})).text
    return Answer(name or f"t/{nats}", "t", 0.0, 0, "stop", text, cluster=cluster)


def test_errors_are_those_of_a_ratio() -> None:
    answers = [_read(2.0, 4), _read(3.0, 2), _read(1.0, 4)]
    value, error = METRICS["kl/base"].estimate(answers)
    # 6 nats of 10 tokens; residuals 2 - 2.4, 3 - 1.2, 1 - 2.4
    assert value == pytest.approx(0.6)
    assert error == pytest.approx(math.sqrt(1.5 * (0.4**2 + 1.8**2 + 1.4**2)) / 10)
    likely, its_error = METRICS["perplexity"].estimate(answers)
    assert likely == pytest.approx(math.exp(0.6))
    assert its_error == pytest.approx(likely * error)
    # Texts of one cluster: residuals -0.4 + 1.8 and -1.4.
    together = [_read(2.0, 4, "a"), _read(3.0, 2, "a"), _read(1.0, 4, "b")]
    assert METRICS["kl/base"].estimate(together)[1] == pytest.approx(math.sqrt(2 * 2 * 1.96) / 10)


def test_texts_are_lines_or_paragraphs(tmp_path: Path) -> None:
    plain = tmp_path / "texts.txt"
    plain.write_text("one\ntwo\n\n \nthree\n\none  two\n")
    found = load_texts(TaskSource("t", {"search": plain})).splits["search"]
    assert [q.prompt for q in found] == ["one\ntwo", "three"]  # one is there twice
    lines = tmp_path / "texts.jsonl"
    lines.write_text('{"text": " "}\n')
    with pytest.raises(SpecError, match=r"text 1 of .*texts.jsonl has none \(task 't'\)"):
        load_texts(TaskSource("t", {"search": lines}, prompt="{text}"))
    with pytest.raises(SpecError, match=r"texts.jsonl:1 has no 'body'"):
        load_texts(TaskSource("t", {"search": lines}, prompt="{body}"))
