"""Tasks of lm-evaluation-harness: its own model and our engines score the same."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from harness_task import CHAINS
from mergefront.errors import EvaluationError, SpecError
from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.evaluation import METRICS, Completion, Models, Sampling, Task
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.scorers.forked import ForkedScorer
from mergefront.objectives.evaluation.tasks.lm_eval import (
    HarnessLM,
    HarnessSource,
    load_harness_task,
)
from mergefront.study.spec.evaluation import TaskSection

REPOSITORY = Path(__file__).resolve().parents[4]
N_QUESTIONS = 80


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


def _write(folder: Path, **changes: Any) -> Path:
    lines = (QUESTIONS / "search.jsonl").read_text().splitlines()[:N_QUESTIONS]
    questions = folder / "questions.jsonl"
    questions.write_text("\n".join(lines))
    data = {"dataset_kwargs": {"data_files": {"test": str(questions)}}}
    path = folder / "chains.yaml"
    path.write_text(yaml.safe_dump({**CHAINS, **data, **changes}))
    return path


def _load(path: Path, **options: Any) -> Task:
    fractions = {"search": 0.5, "validation": 0.5}
    return load_harness_task(HarnessSource("chains", str(path), fractions, **options), BASE, 64)  # type: ignore[arg-type]


def _samples(model: Any, path: Path, chat: bool) -> dict[tuple[int, str], tuple[Any, float]]:
    results = lm_eval.simple_evaluate(
        model,
        tasks=[str(path)],
        task_manager=TaskManager(include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        apply_chat_template=chat,
    )
    return {
        (s["doc_id"], s["filter"]): (s["resps"], s["exact_match"])
        for s in results["samples"]["chains"]
    }


@pytest.mark.parametrize(("weight", "chat"), [(0.0, False), (1.0, False), (1.0, True)])
def test_the_harness_scores_our_answers_as_its_own(
    backend: TransformersBackend, tmp_path: Path, weight: float, chat: bool
) -> None:
    path = _write(tmp_path)
    backend.apply(backend.plan.group_weights(backend.plan.uniform(weight)))
    parent = EXPERT if weight else BASE
    own = HFLM(pretrained=str(parent), dtype="float32", batch_size=16, device="cpu")
    expected = _samples(own, path, chat)
    assert len(expected) == 2 * N_QUESTIONS
    assert _samples(HarnessLM(backend, BASE), path, chat) == expected
    # The same scores without the harness's loop, as a study measures them.
    task = _load(path, chat=chat, reasoning=True)
    questions = questions_of([task], "search") + questions_of([task], "validation")
    metrics = [METRICS["accuracy"], METRICS["tokens"]]
    objective = MergeObjective(backend, backend.plan, questions, metrics, Sampling(64))
    answers = objective.measure(backend.plan.uniform(weight)).answers
    scores = {int(answer.question_id.split("/")[1]): answer.score for answer in answers}
    assert scores == {doc: score for (doc, name), (_, score) in expected.items() if name == "raw"}


def _said(text: str) -> Completion:
    return Completion(text, 9, "stop")


def test_splits_are_disjoint_and_settings_come_from_the_task(tmp_path: Path) -> None:
    task = _load(_write(tmp_path))
    assert task.sampling == Sampling(48, (";b",), chat=False)
    assert [len(members) for members in task.splits.values()] == [40, 40]
    changed = _load(_write(tmp_path), max_new_tokens=9, stop=(), filter="last")
    assert changed.sampling == Sampling(9, (), chat=False)
    assert changed.content_hash() != task.content_hash()


def test_metrics_see_what_follows_the_reasoning(tmp_path: Path) -> None:
    path = _write(tmp_path, generation_kwargs={"until": [], "max_gen_toks": 48})
    question = _load(path).splits["search"][0]
    answer = json.loads(question.answer)
    plain, whole = _load(path), _load(path, reasoning=True)
    assert plain.score(question, _said(f"<think>1+1;</think>{answer}")) == 1.0
    assert whole.score(question, _said(f"<think>1+1;</think>{answer}")) == 0.0
    assert plain.score(question, _said(f"<think>{answer}")) == 0.0  # cut in the middle


def test_local_files_take_the_place_of_the_hub(tmp_path: Path) -> None:
    """gsm8k's own prompt, examples and filters over questions of the same shape."""
    lines = [
        {"question": f"What is {i} plus {i}?", "answer": f"Add. #### {2 * i}"} for i in range(20)
    ]
    for name in ("train", "test"):
        rows = lines[:10] if name == "train" else lines[10:]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("train", "test")}
    source = HarnessSource("g", "gsm8k", {"search": 1.0}, dataset=files, n_fewshot=2, chat=False)
    task = load_harness_task(source, BASE, 64)
    question = task.splits["search"][0]
    assert question.prompt.count("Question: What is") == 3
    assert question.prompt.endswith("Answer:")
    total = question.answer.rsplit("#### ", 1)[1].rstrip('"')
    assert task.score(question, _said(f" It is {total} dollars")) == 1.0
    assert task.score(question, _said(" no idea")) == 0.0


READY: dict[str, tuple[dict[str, Any], str | None]] = {
    "gsm8k": ({"question": "{i} and {i}?", "answer": "Add.\n#### {i}"}, "so it is {i}."),
    "math500": (
        {"problem": "{i}?", "solution": "$\\boxed{{{i}}}$", "answer": "{i}"},
        "so $\\boxed{{{i}}}$.",
    ),
    "aime25": ({"problem": "{i}?", "answer": "{i}"}, "so $\\boxed{{{i}}}$."),
    "gpqa-diamond": (
        {
            "Question": "{i}?",
            "Correct Answer": "yes",
            "Incorrect Answer 1": "no",
            "Incorrect Answer 2": "never",
            "Incorrect Answer 3": "maybe",
        },
        None,
    ),
    "ifeval": (
        {
            "key": "{i}",
            "prompt": "{i}: lowercase.",
            "instruction_id_list": ["change_case:english_lowercase"],
            "kwargs": [{}],
        },
        "all of it in lowercase {i}",
    ),
}


def _ready_task(name: str, folder: Path) -> Task:
    """Load one of the example's tasks over a file with the columns of its data set."""
    rows, _ = READY[name]
    path = folder / f"{name}.jsonl"
    lines = (
        {k: v.format(i=i) if isinstance(v, str) else v for k, v in rows.items()} for i in range(7)
    )
    path.write_text("\n".join(map(json.dumps, lines)))
    spec = yaml.safe_load((REPOSITORY / "examples" / "five-benchmarks.yaml").read_text())
    chosen = {task["name"]: task for task in spec["evaluation"]["tasks"]}[name]
    section = TaskSection.model_validate(chosen)
    source = HarnessSource(
        name,
        str(section.lm_eval),
        {"search": 1.0},
        {split: str(path) for split in ("train", "test")},
        section.metric,
        section.filter,
        section.num_fewshot,
        section.chat,
        section.max_new_tokens,
        None if section.stop is None else tuple(section.stop),
    )
    return load_harness_task(source, BASE, 64)


@pytest.mark.parametrize("name", READY)
def test_the_examples_tasks_ask_and_score_local_data(name: str, tmp_path: Path) -> None:
    task, again = (_ready_task(name, tmp_path) for _ in range(2))
    assert task.content_hash() == again.content_hash()
    assert task.sampling is not None
    assert task.sampling.stop == ()
    right = READY[name][1]
    for question in task.splits["search"]:
        answer = json.loads(question.answer)
        number = re.findall(r"\d", question.content)[0]
        text = f"The answer is {answer}." if right is None else right.format(i=number)
        assert task.score(question, _said(f"<think>WHICH? 99</think>{text}")) == 1.0
        assert task.score(question, _said("<think>x</think>NO IDEA 11")) == 0.0
        assert task.score(question, _said(f"<think>{text}")) == 0.0


VOTED = [
    {
        "name": "voted",
        "filter": [{"function": "take_first_k", "k": 4}, {"function": "majority_vote"}],
    },
    {"name": "first", "filter": [{"function": "take_first"}]},
]
METRICS_OF_OWN = """
import numpy as np

def right(references, predictions, **kwargs):
    return np.float32(references[0] == predictions[0])

def wrong(references, predictions, **kwargs):
    return np.bool_(references[0] != predictions[0])

def results(doc, results):
    return {"right": np.int64(results[0] == doc["answer"])}
"""


def _own_metrics(folder: Path, **changes: Any) -> Path:
    """Write a task whose metrics are functions in a file beside it."""
    (folder / "utils.py").write_text(METRICS_OF_OWN)
    path = _write(folder, filter_list=None, metric_list=None)
    content = {k: v for k, v in yaml.safe_load(path.read_text()).items() if v is not None}
    text = yaml.safe_dump({**content, **changes})
    path.write_text(re.sub(r"'!function (\S+)'", r"!function \1", text))
    return path


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "exact_match"),
        ({"metric_list": [{"metric": "!function utils.right"}]}, "right"),
        (
            {"metric_list": [{"metric": "right"}], "process_results": "!function utils.results"},
            "right",
        ),
        (
            {"metric_list": [{"metric": "!function utils.wrong", "higher_is_better": False}]},
            "wrong",
        ),
        ({"filter_list": VOTED, "repeats": 4}, "exact_match"),
    ],
)
def test_metrics_of_many_kinds_score_single_answers(
    tmp_path: Path, changes: dict[str, Any], name: str
) -> None:
    """No metric list, functions, NumPy's numbers, error rates, other filters that need votes."""
    shared = {"aggregation": "mean", "higher_is_better": True}
    metrics = [{**shared, **entry} for entry in changes.get("metric_list", [])]
    path = _own_metrics(tmp_path, **{**changes, **({"metric_list": metrics} if metrics else {})})
    options = {"filter": "first"} if "filter_list" in changes else {}
    task, again = _load(path, **options), _load(path, **options)
    assert f'"{name}"' in task.scorer
    assert task.content_hash() == again.content_hash()  # no address of a function in it
    for question in task.splits["search"][:3]:
        assert task.score(question, _said(json.loads(question.answer))) == 1.0
        assert task.score(question, _said("nothing")) == 0.0


def test_without_generation_kwargs_the_studys_limit_holds(tmp_path: Path) -> None:
    path = _own_metrics(tmp_path)
    content = yaml.safe_load(path.read_text())
    del content["generation_kwargs"]
    path.write_text(yaml.safe_dump(content))
    task = _load(path)
    assert task.sampling == Sampling(64, ("\n\n",), chat=False)


def test_a_question_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    path = _write(tmp_path)
    lines = (tmp_path / "questions.jsonl").read_text().splitlines()
    (tmp_path / "questions.jsonl").write_text("\n".join([*lines, *lines[:30]]))
    task = _load(path)
    assert sum(len(members) for members in task.splits.values()) == N_QUESTIONS


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (
            {"output_type": "loglikelihood_rolling"},
            {"metric": "exact_match"},
            "Texts are read by `perplexity`.* remove `metric` and `filter` of task 'chains'",
        ),
        ({"unsafe_code": True}, {}, "runs code that a model wrote.*scorer: unit_tests"),
        ({"metric_list": [{"metric": "bleu"}]}, {}, "must give a score to each question"),
        ({"filter_list": VOTED}, {"filter": "voted"}, r"does not: .*`filter` \(voted, first\)"),
        ({}, {"metric": "bleu"}, "`metric` of task 'chains' must be one of exact_match"),
        ({}, {"filter": "first"}, "`filter` of task 'chains' must be one of last, raw"),
        ({"dataset_kwargs": {"data_files": {"test": "missing.jsonl"}}}, {}, "could not be loaded"),
        ({"doc_to_text": "{{question"}, {}, "could not be loaded.*correct its file"),
        ({"metric_list": [{"metric": "no_such"}]}, {}, "could not be loaded.*correct its file"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        _load(_write(tmp_path, **changes), **options)


OWN_RESULTS = """
import os, re, signal

def results(doc, results):
    answer = results[0]
    if answer == "loop":
        re.match(r"(a+)+$", "a" * 40 + "b")
    if answer == "huge":
        return {"right": 9 ** (9 ** 9) > 0}
    if answer == "memory":
        return {"right": len(bytearray(1 << 40)) > 0}
    if answer == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if answer == "exit":
        os._exit(0)
    if answer == "pool":
        import torch
        torch.ones(2000, 2000) @ torch.ones(2000, 2000)
    if answer == "print":
        print("said", flush=True)
    known = {"raise": lambda: 1 / 0, "many": lambda: (0.5, 2), "beyond": lambda: 1.5}
    return {"right": known.get(answer, lambda: answer == doc["answer"])()}
"""


@pytest.fixture
def own_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task whose metric does whatever an answer says, for two seconds."""
    quick = partial(ForkedScorer, seconds=2.0)
    monkeypatch.setattr("mergefront.objectives.evaluation.tasks.lm_eval.ForkedScorer", quick)
    path = _own_metrics(
        tmp_path,
        metric_list=[{"metric": "right", "aggregation": "mean", "higher_is_better": True}],
        process_results="!function utils.results",
    )
    (tmp_path / "utils.py").write_text(OWN_RESULTS)
    return _load(path)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("many", r"within \[0, 1\].*gives \(0.5, 2\). Choose another `metric`"),
        ("beyond", r"within \[0, 1\].*gives 1.5"),
        ("raise", "must give a number for any answer, but 'right' .* fails: ZeroDivisionError"),
    ],
)
def test_a_score_that_is_no_share_is_refused(own_results: Task, answer: str, message: str) -> None:
    question = own_results.splits["search"][0]
    with pytest.raises(EvaluationError, match=message):
        own_results.score(question, _said(answer))
    assert own_results.score(question, _said(json.loads(question.answer))) == 1.0


@pytest.mark.parametrize("answer", ["loop", "huge", "memory", "crash", "exit"])
def test_no_answer_hangs_or_ends_a_worker(
    own_results: Task, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    question, other = own_results.splits["search"][:2]
    assert own_results.score(question, _said(answer)) == 0.0
    assert ("it counts 0" in caplog.text) == (answer != "memory")
    assert own_results.score(other, _said(json.loads(other.answer))) == 1.0
    assert own_results.score(other, _said("7x")) == 0.0


def test_metrics_may_use_threads_and_print(
    own_results: Task, capfd: pytest.CaptureFixture[str]
) -> None:
    question = own_results.splits["search"][0]
    for answer in ("pool", "print"):
        assert own_results.score(question, _said(answer)) == 0.0
    assert own_results.score(question, _said(json.loads(question.answer))) == 1.0
    assert capfd.readouterr().out == ""


def test_what_is_no_task_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="must be one task of lm-eval, but 'no_such_task' is not"):
        _load(Path("no_such_task"))
    (tmp_path / "task.yaml").write_text("task: [chains")
    with pytest.raises(SpecError, match=r"must be YAML, but .* flow sequence") as caught:
        _load(tmp_path / "task.yaml")
    assert "\n" not in str(caught.value)
