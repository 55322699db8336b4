"""Tasks that compare likelihoods: scores equal the harness's own model's."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mergefront.errors import SpecError
from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.evaluation import METRICS, Models, Sampling, TaskSource, load_task
from mergefront.objectives.evaluation.backends.likelihood import Likelihood, Pair
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.cache import AnswerCache
from mergefront.objectives.evaluation.tasks.lm_eval import (
    HarnessLM,
    HarnessSource,
    load_harness_task,
)
from mergefront.study.readiness import check_ready
from mergefront.study.spec import load_inputs
from small_study import read_json_lines, write_spec

N = 24
LETTERS = ["a", "b", "c", "d"]
_ACC = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
_BOTH = [*_ACC, {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}]
# The shapes of MMLU (letters), HellaSwag (endings), ARC (labels in the data) and LAMBADA.
SHAPES: dict[str, dict[str, Any]] = {
    "mmlu": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}={{choices[0]}};{{choices[1]}};{{choices[2]}};{{choices[3]}}?",
        "doc_to_choice": LETTERS,
        "doc_to_target": "answer",
        "metric_list": _ACC,
    },
    "hellaswag": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "{{answer}}",
        "metric_list": _BOTH,
    },
    "arc": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}} ",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{labels.index(label)}}",
        "target_delimiter": "",
        "num_fewshot": 2,
        "fewshot_split": "test",
        "metric_list": _BOTH,
    },
    "lambada": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[answer]}}",
        "target_delimiter": "",
        "metric_list": _ACC,
    },
}


@pytest.fixture(scope="module", autouse=True)
def datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("datasets")
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    lines = read_json_lines(QUESTIONS / "search.jsonl")[:N]
    rows = []
    for i, line in enumerate(lines):
        others = [lines[(i + k) % N]["answer"] + str(k) for k in (1, 2, 3)]
        answer = i % 4
        choices = [*others[:answer], line["answer"], *others[answer:]]
        row = {"question": line["prompt"], "choices": choices, "answer": answer}
        rows.append({**row, "labels": LETTERS, "label": LETTERS[answer], "page": f"p{i // 3}"})
    data = folder / "data.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    for name, shape in SHAPES.items():
        common = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            "metadata": {"version": 1},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**common, **shape}))
    group = {
        "group": "exams",
        "task": ["mmlu", "arc"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
    (folder / "exams.yaml").write_text(yaml.safe_dump(group))
    return folder


@pytest.fixture(scope="module")
def backend() -> TransformersBackend:
    backend = TransformersBackend(batch_size=5, device="cpu")
    backend.load(Models(BASE, (EXPERT,), "float32"))
    return backend


@pytest.fixture(scope="module")
def own() -> HFLM:
    return HFLM(pretrained=str(EXPERT), dtype="float32", batch_size=7, device="cpu")


def _harness(model: Any, folder: Path, names: Sequence[str], chat: bool) -> dict[str, Any]:
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results: dict[str, Any] = lm_eval.simple_evaluate(
        model,
        tasks=list(names),
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )
    return results


def _objective(
    backend: TransformersBackend, source: HarnessSource, cache: AnswerCache | None = None
) -> MergeObjective:
    task = load_harness_task(source, BASE, 64)
    questions = questions_of([task], "search")
    return MergeObjective(
        backend, backend.plan, questions, [METRICS["accuracy"]], Sampling(64), cache=cache
    )


@pytest.mark.parametrize("chat", [False, True])
def test_scores_are_those_of_the_harness(
    backend: TransformersBackend, own: HFLM, folder: Path, chat: bool
) -> None:
    names = list(SHAPES)
    expected = _harness(own, folder, names, chat)["samples"]
    backend.apply(backend.plan.group_weights(backend.plan.uniform(1.0)))
    ours = _harness(HarnessLM(backend, BASE), folder, names, chat)["samples"]
    for name in names:
        for theirs, mine in zip(expected[name], ours[name], strict=True):
            for (one, greedy), (other, greedy_too) in zip(
                (r[0] for r in theirs["resps"]), (r[0] for r in mine["resps"]), strict=True
            ):
                assert float(one) == pytest.approx(float(other), abs=1e-4)
                assert str(greedy) == str(greedy_too)
        for metric in [entry["metric"] for entry in SHAPES[name]["metric_list"]]:
            path = str(folder / f"{name}.yaml")
            source = HarnessSource("t", path, {"search": 1.0}, metric=metric, chat=chat)
            answers = _objective(backend, source).measure(backend.plan.uniform(1.0)).answers
            scores = {int(answer.question_id.split("/")[1]): answer.score for answer in answers}
            assert scores == {s["doc_id"]: float(s[metric]) for s in expected[name]}
    assert any(0 < sum(s["acc"] for s in expected[name]) < N for name in names)


def test_a_group_is_one_task_with_the_groups_value(
    backend: TransformersBackend, own: HFLM, folder: Path
) -> None:
    expected = _harness(own, folder, ["exams"], False)["results"]["exams"]["acc,none"]
    source = HarnessSource(
        "t", str(folder / "exams.yaml"), {"search": 1.0}, metric="acc", chat=False
    )
    measured = _objective(backend, source).measure(backend.plan.uniform(1.0))
    assert measured.n_questions == 2 * N
    assert measured.values[0] == pytest.approx(expected)
    assert {a.question_id.split(":")[0] for a in measured.answers} == {"t/mmlu", "t/arc"}


def test_nothing_is_generated_and_each_pair_is_read_once(
    backend: TransformersBackend, folder: Path, tmp_path: Path
) -> None:
    path = str(folder / "hellaswag.yaml")
    source = HarnessSource("t", path, {"search": 1.0}, chat=False, cluster="page")
    cache = AnswerCache(tmp_path / "answers.db", "scope")
    first = _objective(backend, source, cache).measure(backend.plan.uniform(0.5))
    assert first.attributes()["generated_tokens"] == 0
    assert first.n_cached == 0
    again = _objective(backend, source, cache).measure(backend.plan.uniform(0.5))
    assert (again.n_cached, again.answers) == (N, first.answers)
    assert {answer.cluster for answer in first.answers} == {f"p{i}" for i in range(N // 3)}


def _alone(backend: TransformersBackend, pair: Pair) -> float:
    """Return a continuation's likelihood by one forward pass a token."""
    context, continuation = pair
    assert context
    tokenizer = backend._chat.tokenizer
    ids = tokenizer(context + continuation, return_tensors="pt").input_ids
    n = ids.shape[1] - len(tokenizer(context).input_ids)
    total = 0.0
    for end in range(ids.shape[1] - n, ids.shape[1]):
        logs = backend._model(input_ids=ids[:, :end]).logits[0, -1].log_softmax(-1)
        total += float(logs[ids[0, end]])
    return total


def test_likelihoods_are_those_of_single_steps_in_any_batch(backend: TransformersBackend) -> None:
    pairs: list[Pair] = [
        ("1a+1b+1?", "a1+1=2;b2"),
        ("cig?", "ci"),
        ("cig?", "c"),
        ("9a*3b*7?", "e"),
    ]
    found = backend.loglikelihood(pairs)
    with torch.inference_mode():
        expected = [_alone(backend, pair) for pair in pairs]
    assert [each.total for each in found] == pytest.approx(expected, abs=1e-4)
    seen: dict[int, Likelihood] = {}
    assert backend.loglikelihood(pairs[::-1], seen.__setitem__)[::-1] == [
        Likelihood(pytest.approx(each.total, abs=1e-5), each.is_greedy, each.n_tokens)  # type: ignore[arg-type]
        for each in found
    ]
    assert sorted(seen) == [0, 1, 2, 3]
    assert backend.loglikelihood([]) == []


def test_texts_longer_than_the_model_are_read_in_windows(backend: TransformersBackend) -> None:
    from lm_eval.api.instance import Instance

    text = "1a+1b+1?" * 40  # the model has 128 positions
    lm = HFLM(pretrained=backend._model, tokenizer=backend._chat.tokenizer, batch_size=2)
    request = Instance("loglikelihood_rolling", {}, (text,), 0)
    expected = lm.loglikelihood_rolling([request], disable_tqdm=True)
    found = HarnessLM(backend, BASE).loglikelihood_rolling([request])
    assert found == pytest.approx(expected, rel=1e-5)


def test_tokens_count_the_tasks_that_generate(
    backend: TransformersBackend, folder: Path, tmp_path: Path
) -> None:
    chains = load_task(TaskSource("chains", {"search": QUESTIONS / "importance.jsonl"}))
    source = HarnessSource("exam", str(folder / "arc.yaml"), {"search": 1.0}, chat=False)
    questions = questions_of([chains], "search")[:10]
    both = [*questions, *questions_of([load_harness_task(source, BASE, 64)], "search")]
    metrics = [METRICS["accuracy"], METRICS["tokens"], METRICS["truncation"]]
    alone, joined = (
        MergeObjective(backend, backend.plan, asked, metrics, Sampling(48)).measure(
            backend.plan.uniform(1.0)
        )
        for asked in (questions, both)
    )
    assert joined.values[1:] == alone.values[1:]
    assert joined.values[0] != alone.values[0]
    assert "tokens/exam" not in joined.by_task
    path = write_spec(
        tmp_path,
        evaluation={"tasks": [{"name": "exam", "lm_eval": str(folder / "arc.yaml")}]},
    )
    with pytest.raises(SpecError, match="'tokens' is counted in generated answers"):
        load_inputs(path)


def test_what_vllm_would_cut_is_refused(folder: Path, tmp_path: Path) -> None:
    def check(longest: int, backend: str = "vllm", chat: bool = True) -> None:
        exam = {"name": "exam", "lm_eval": str(folder / "arc.yaml"), "chat": chat}
        evaluation = {"backend": backend, "engine": {"max_model_len": longest}, "tasks": [exam]}
        metrics = {"objectives": [{"metric": "accuracy"}, {"metric": "perplexity"}]}
        path = write_spec(tmp_path, evaluation=evaluation)
        content = yaml.safe_load(path.read_text()) | metrics
        content["evaluation"]["tasks"].append({"name": "texts", "texts": "texts.txt"})
        path.write_text(yaml.safe_dump(content))
        check_ready(load_inputs(path))

    (tmp_path / "texts.txt").write_text("\n\n".join(f"{i}+1={i + 1}" for i in range(8)))
    with pytest.raises(SpecError, match="must not be cut, but that of question 'exam/") as refused:
        check(20)
    check(20, "transformers")  # has no such limit
    lengths = re.findall(r"(\d+) tokens .* is 20\. Set it to (\d+)", str(refused.value))
    ((n_tokens, enough),) = lengths
    assert int(enough) == int(n_tokens) + 1
    # The longest of all, in the end: by one less it is cut.
    while True:
        try:
            check(int(enough))
            break
        except SpecError as error:
            enough = re.findall(r"Set it to (\d+)", str(error))[0]
    with pytest.raises(SpecError, match=f"Set it to {enough} or more"):
        check(int(enough) - 1)
