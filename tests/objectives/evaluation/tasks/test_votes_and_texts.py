"""Tasks of the harness whose repeats vote, and tasks of whole texts."""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness_task import CHAINS
from mergefront.errors import SpecError
from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.evaluation import METRICS, Completion, Models, Sampling, Task
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.tasks.lm_eval import HarnessSource, load_harness_task
from small_study import read_json_lines

VOTED = [{"function": "majority_vote"}, {"function": "take_first"}]
FILTERS = [
    {"name": "maj", "filter": [{"function": "take_first_k", "k": 4}, *VOTED]},
    {"name": "first", "filter": [{"function": "take_first"}]},
]
DRAWN = Sampling(24, temperature=1.5, repeats=4)


@pytest.fixture(scope="module", autouse=True)
def datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("datasets")
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder)
        yield


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    backend = TransformersBackend(batch_size=32, device="cpu")
    backend.load(Models(BASE, (EXPERT,), "float32"))
    return backend


def _load(folder: Path, sampling: Sampling, filter: str | None = None, **changes: Any) -> Task:
    path = folder / "search.jsonl"
    rows = read_json_lines(QUESTIONS / "search.jsonl")[:16]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"dataset_kwargs": {"data_files": {"test": str(path)}}, "filter_list": FILTERS}
    (folder / "chains.yaml").write_text(yaml.safe_dump({**CHAINS, **data, **changes}))
    source = HarnessSource("t", str(folder / "chains.yaml"), {"search": 1.0}, filter=filter)
    return load_harness_task(source, BASE, sampling)


def test_repeats_vote(tmp_path: Path) -> None:
    question = questions_of([_load(tmp_path, DRAWN, "maj")], "search")[0]
    right, wrong = json.loads(question.question.answer), "nothing"
    for texts, score in (
        ([wrong, right, right, "x"], 1.0),
        ([wrong, wrong, right, "x"], 0.0),
    ):
        answers = question.all_answered([Completion(text, 2, "stop") for text in texts])
        assert [answer.score for answer in answers] == [score] * 4
        assert [answer.repeat for answer in answers] == [0, 1, 2, 3]
    alone = questions_of([_load(tmp_path, DRAWN, "first")], "search")[0]
    answers = alone.all_answered([Completion(text, 2, "stop") for text in (wrong, right)])
    assert [answer.score for answer in answers] == [0.0, 1.0]


def test_fewer_repeats_than_votes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"least 4 responses.*or more `sampling.repeats`"):
        _load(tmp_path, Sampling(24, temperature=1.5, repeats=3), "maj")


def test_a_measurement_counts_votes(backend: TransformersBackend, tmp_path: Path) -> None:
    task = _load(tmp_path, DRAWN, "maj")
    questions, metrics = questions_of([task], "search"), [METRICS["accuracy"], METRICS["tokens"]]
    objective = MergeObjective(backend, backend.plan, questions, metrics, DRAWN)
    measured = objective.measure(backend.plan.uniform(0.3))
    by_question: dict[str, list[str]] = {}
    for answer in measured.answers:
        by_question.setdefault(answer.question_id, []).append(answer.text.strip())
    expected = [
        Counter(by_question[q.question.id]).most_common(1)[0][0] == json.loads(q.question.answer)
        for q in questions
    ]
    assert len(measured.answers) == 4 * len(questions)
    assert any(len(set(texts)) > 1 for texts in by_question.values())
    assert measured.values[0] == pytest.approx(sum(expected) / len(expected))


ROLLING: dict[str, Any] = {
    "output_type": "loglikelihood_rolling",
    "doc_to_target": "{{prompt}}",
    "metric_list": [{"metric": "word_perplexity"}],
    "filter_list": None,
}


def test_tasks_of_texts_are_read(backend: TransformersBackend, tmp_path: Path) -> None:
    task = _load(tmp_path, Sampling(24), **ROLLING)
    assert task.reads and task.kind == "read"
    questions = questions_of([task], "search")
    texts = sorted(q.question.prompt for q in questions)
    assert texts == sorted(r["prompt"] for r in read_json_lines(tmp_path / "search.jsonl"))
    likely = [METRICS["perplexity"]]
    objective = MergeObjective(backend, backend.plan, questions, likely, Sampling(24))
    value = objective.measure(backend.plan.uniform(1.0)).values[0]
    found = backend.read(texts)
    total, n = (sum(getattr(r, name) for r in found) for name in ("total", "n_tokens"))
    assert value == pytest.approx(math.exp(-total / n))


def test_empty_texts_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = read_json_lines(QUESTIONS / "search.jsonl")[0]["prompt"]
    some = f"{{{{ prompt if prompt == {json.dumps(first)} else ' ' }}}}"
    task = _load(tmp_path, Sampling(24), **ROLLING | {"doc_to_target": some})
    assert [question.prompt for question in task.splits["search"]] == [first]
    assert "task 't': 15 empty text(s) are left out" in caplog.text
    with pytest.raises(SpecError, match="must have words, but all of 't' are empty"):
        _load(tmp_path, Sampling(24), **ROLLING | {"doc_to_target": "{{ '' }}"})
