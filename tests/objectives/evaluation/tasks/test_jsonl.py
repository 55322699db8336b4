"""Question files: splits, templates and what is refused."""

import json
from pathlib import Path

import pytest

from backend_suite import LONG, PLAN
from mergefront.errors import SpecError
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.evaluation import METRICS, TaskSource, check_disjoint, load_task
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.clusters import numbered


def _write(path: Path, lines: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def _numbers(n: int) -> list[dict[str, object]]:
    return [{"prompt": f"question {i}", "answer": i} for i in range(n)]


def test_one_file_is_cut_into_disjoint_splits_that_ignore_its_order(tmp_path: Path) -> None:
    fractions = {"search": 0.6, "validation": 0.3}
    lines = _numbers(50)
    tasks = [
        load_task(TaskSource("t", {}, _write(tmp_path / name, rows), fractions=fractions))  # type: ignore[arg-type]
        for name, rows in (("a", lines), ("b", lines[::-1]))
    ]
    splits = [{s: {q.prompt for q in qs} for s, qs in task.splits.items()} for task in tasks]
    assert splits[0] == splits[1]
    assert [len(qs) for qs in splits[0].values()] == [30, 15]
    assert splits[0]["search"].isdisjoint(splits[0]["validation"])


def test_template_and_answer_field_are_applied(tmp_path: Path) -> None:
    path = _write(tmp_path / "q.jsonl", [{"q": "1+1", "id": "x", "gold": 2}])
    source = TaskSource("t", {"search": path}, prompt="Solve {q}!", answer="gold")
    (question,) = load_task(source).splits["search"]
    assert (question.id, question.prompt, question.answer) == ("x", "Solve 1+1!", "2")


def test_a_missing_field_names_the_line_and_the_field(tmp_path: Path) -> None:
    path = _write(tmp_path / "q.jsonl", [{"prompt": "a", "answer": "b"}, {"prompt": "c"}])
    with pytest.raises(SpecError, match=r"q\.jsonl:2 has no 'answer'; it has \['prompt'\]"):
        load_task(TaskSource("t", {"search": path}))


def test_a_line_that_is_no_json_names_its_place(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text("{}{\n")
    with pytest.raises(SpecError, match=r"q\.jsonl:1 is not"):
        load_task(TaskSource("t", {"search": tmp_path / "q.jsonl"}))


def test_missing_files_and_empty_splits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"task 't' must be in a file, but .*none\.jsonl"):
        load_task(TaskSource("t", {"search": tmp_path / "none.jsonl"}))
    with pytest.raises(SpecError, match="'search' of task 't' is empty"):
        load_task(TaskSource("t", {"search": _write(tmp_path / "empty.jsonl", [])}))
    path = _write(tmp_path / "one.jsonl", _numbers(1))
    with pytest.raises(SpecError, match="'validation' of task 't' is empty"):
        load_task(TaskSource("t", {}, path, fractions={"search": 0.9, "validation": 0.1}))


def test_a_question_in_two_splits_is_refused(tmp_path: Path) -> None:
    search = _write(tmp_path / "s.jsonl", _numbers(3))
    other = _write(tmp_path / "v.jsonl", _numbers(1))
    with pytest.raises(SpecError, match="'question 0'"):
        load_task(TaskSource("t", {"search": search, "validation": other}))


def test_the_content_hash_follows_what_decides_a_score(tmp_path: Path) -> None:
    path = _write(tmp_path / "q.jsonl", _numbers(3))
    reference = load_task(TaskSource("t", {"search": path})).content_hash()
    assert load_task(TaskSource("renamed", {"search": path})).content_hash() == reference
    templated = TaskSource("t", {"search": path}, prompt="Q: {prompt}")
    assert load_task(templated).content_hash() != reference
    fewer = TaskSource("t", {"search": _write(tmp_path / "fewer.jsonl", _numbers(2))})
    assert load_task(fewer).content_hash() != reference


def test_a_question_of_one_task_is_found_in_another_tasks_split(tmp_path: Path) -> None:
    search = _write(tmp_path / "a.jsonl", [{"q": "What is  1 + 1?", "answer": 2}])
    test = _write(tmp_path / "b.jsonl", [{"prompt": "what is 1 + 1?", "answer": 2}])
    tasks = [
        load_task(TaskSource("a", {"search": search}, prompt="Solve: {q}")),
        load_task(TaskSource("b", {"test": test})),
    ]
    with pytest.raises(SpecError, match=r"'search' of task 'a' and in 'test' of task 'b'"):
        check_disjoint(tasks)


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (r"Put it in \boxed{}. {prompt}", r"Put it in \boxed{}. 1+1"),
        (r"\frac{1}{2} and \text{km}: {prompt}", r"\frac{1}{2} and \text{km}: 1+1"),
        ("{ {prompt}", "{ 1+1"),
        ("{{prompt}} {prompt}}}", "{prompt} 1+1}"),
        ('{"answer": 1} {prompt}', '{"answer": 1} 1+1'),
        ("{prompt} {a field}", "1+1 x"),
        (r"\boxed{answer} {prompt}", r"\boxed2 1+1"),
    ],
)
def test_braces_that_are_no_field_are_left_alone(
    tmp_path: Path, template: str, prompt: str
) -> None:
    line: dict[str, object] = {"prompt": "1+1", "answer": 2, "a field": "x"}
    source = TaskSource("t", {"search": _write(tmp_path / "q.jsonl", [line])}, prompt=template)
    assert load_task(source).splits["search"][0].prompt == prompt


@pytest.mark.parametrize(
    ("line", "template", "message"),
    [
        ({"prompt": "a", "answer": None}, "{prompt}", r"q\.jsonl:1: .*'answer' is null"),
        ({"prompt": "a", "answer": ["7", "seven"]}, "{prompt}", "'answer' is "),
        ({"prompt": "a", "answer": {"value": 7}}, "{prompt}", "'answer' is "),
        ({"prompt": "a", "answer": True}, "{prompt}", "'answer' is true"),
        ({"prompt": "a", "answer": float("nan")}, "{prompt}", "'answer' is NaN"),
        ({"prompt": "a", "answer": " "}, "{prompt}", "needs a reference"),
        ({"prompt": ["a"], "answer": 7}, "{prompt}", "'prompt' is "),
        ({"prompt": "a\ud800", "answer": 7}, "{prompt}", "half a character"),
        ({"prompt": "a", "answer": 7}, "{prompt.x}", "inserts whole fields"),
        ({"prompt": "a", "answer": 7}, "{question}", "has no 'question'"),
    ],
)
def test_what_is_no_question_is_one_line(
    tmp_path: Path, line: dict[str, object], template: str, message: str
) -> None:
    path = _write(tmp_path / "q.jsonl", [line])
    with pytest.raises(SpecError, match=message) as caught:
        load_task(TaskSource("t", {"search": path}, prompt=template))
    assert "\n" not in str(caught.value)


TWICE = '{"prompt": "b", "answer": 1, "answer": 2}'


@pytest.mark.parametrize("text", ['["a"]', '"a"', "7", "null", "[" * 3000, "NaN", TWICE])
def test_a_line_that_is_no_object_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "q.jsonl").write_text('{"prompt": "a", "answer": 1}\n' + text)
    with pytest.raises(SpecError, match=r"must be a JSON object, but .*q\.jsonl:2 is") as caught:
        load_task(TaskSource("t", {"search": tmp_path / "q.jsonl"}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_are_read_as_editors_write_them(tmp_path: Path, encoding: str, end: str) -> None:
    lines = [
        json.dumps({"prompt": f"é\u2028\x85{i}", "answer": i}, ensure_ascii=False) for i in (1, 2)
    ]
    (tmp_path / "q.jsonl").write_bytes((end.join(lines) + end).encode(encoding))
    questions = load_task(TaskSource("t", {"search": tmp_path / "q.jsonl"})).splits["search"]
    assert [q.prompt for q in questions] == ["é\u2028\x851", "é\u2028\x852"]


def test_another_encoding_names_the_line(tmp_path: Path) -> None:
    line = '{"prompt": "a", "answer": "é"}\n'
    (tmp_path / "q.jsonl").write_bytes(b"\n" + line.encode("latin1"))
    with pytest.raises(SpecError, match=r"line 2 of .*q\.jsonl has byte 0xe9. Save it as UTF-8"):
        load_task(TaskSource("t", {"search": tmp_path / "q.jsonl"}))


def test_a_question_that_is_there_twice_counts_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*_numbers(40), {"prompt": "Question  7", "answer": 7}, *_numbers(5)]
    path = _write(tmp_path / "q.jsonl", rows)
    for fraction in (0.3, 0.5, 0.7):
        fractions = {"search": fraction, "validation": 1 - fraction}
        task = load_task(TaskSource("t", {}, path, fractions=fractions))  # type: ignore[arg-type]
        assert sum(map(len, task.splits.values())) == 40
    assert "6 question(s) that are there twice count once" in caplog.text


@pytest.mark.parametrize("ids", [["x", "x", "x"], ["x", "x@3", "x"], ["x", "x@3", "x", "x@3@4"]])
def test_ids_are_made_unique(tmp_path: Path, ids: list[str]) -> None:
    rows: list[dict[str, object]] = [
        {**row, "id": name} for row, name in zip(_numbers(len(ids)), ids, strict=True)
    ]
    task = load_task(TaskSource("t", {"search": _write(tmp_path / "q.jsonl", rows)}))
    assert len({q.id for q in task.splits["search"]}) == len(ids)


def test_a_question_without_a_cluster_is_one_of_its_own(tmp_path: Path) -> None:
    passages = [None, None, "", "a", "a", 0]
    lines = [{**line, "passage": p} for line, p in zip(_numbers(6), passages, strict=True)]
    source = TaskSource("t", {"search": _write(tmp_path / "q", lines)}, cluster="passage")
    task = load_task(source)
    assert [q.cluster for q in task.splits["search"]] == ["", "", "", "a", "a", "0"]
    asked = questions_of([task], "search")
    objective = MergeObjective(TransformersBackend(), PLAN, asked, [METRICS["accuracy"]], LONG)
    found = numbered(objective.clusters)
    assert found is not None
    assert list(found) == [0, 1, 2, 3, 3, 4]
