"""Scorers: readings of an answer, one's own functions, hostile answers."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mergefront.errors import EvaluationError, SpecError
from mergefront.objectives.evaluation import SCORERS, Completion, Task, TaskSource, load_task
from mergefront.objectives.evaluation.scorers import (
    choice_letter,
    json_schema,
    last_number,
    regex,
)
from mergefront.study.spec import load_inputs
from small_study import write_spec


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("so it is 1,234.0 apples", "1234", True),
        ("12 and then -7", "-7", True),
        ("7 of 12", "7", False),
        ("1e3", "1000", True),
        ("it is 18.", "#### 18", True),
        ("none", "3", False),
        (r"\text{Answer: }-42", "-42", True),
        ("10-12", "12", True),
        ("10-12", "-12", False),
        ("1-2", "2", True),
        ("$-5", "-5", True),
        ("-$5", "-5", True),
        ("$5-$10", "10", True),
        ("x=-3", "-3", True),
        ("x = \u22123", "-3", True),
        ("(a+b)-3", "3", True),
        ("5%-10%", "10", True),
        ("COVID-19", "19", True),
        ("1e-3", "0.001", True),
        ("**-4**", "-4", True),
        ("2024-05-12", "12", True),
        (f"{10**60 + 7:,}", str(10**60 + 7), True),
        (f"{10**60 + 7:,}", str(2 * 10**60 + 7), False),
        (str(-(10**60)), str(-(10**60) - 1), False),
        ("0." + "3" * 60, "0." + "3" * 59 + "4", False),
        ("1e4000", "0", False),
        ("1e4000", "10e3999", True),
        ("1e" + "9" * 30, "1e" + "9" * 31, False),
        ("(3,4)", "4", True),
        ("(3,4)", "34", False),
        ("x=1,2", "12", False),
        ("[1,2,3]", "3", True),
        ("1,2345", "2345", True),
        ("1,00,000 rupees", "100000", True),
        ("12,345,678.5", "12345678.5", True),
        ("7" * 30_000, "8" + "7" * 29_999, False),
        ("-" + "7" * 30_000, "-" + "7" * 30_000, True),
    ],
)
def test_last_number(answer: str, reference: str, right: bool) -> None:
    assert last_number(answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("B", "B", True),
        ("(b)", "B", True),
        ("The answer is (C).", "C", True),
        ("The answer is **D**", "D", True),
        ("A is wrong, so the answer is B", "B", True),
        ("Answer: B. I considered C and D.", "B", True),
        ("I don't know", "I", False),
        ("I don\u2019t know", "I", False),
        ("B. I think so", "B", True),
        ("The option I choose is (C)", "C", True),
        ("C, because A train is faster", "C", True),
        ("The answer: A", "A", True),
        ("A is right", "A", True),
        ("A\nBecause it is", "A", True),
        ("It is A, not B; so the answer is A because it moves", "A", True),
        ("(A) train", "A", True),
        ("**A** train", "A", True),
        ("The answer is (I)", "I", True),
        ("A train is faster", "A", False),
        ("Because", "B", False),
        ("", "A", False),
        ("Answer: A Paris", "A", True),
        ("The answer is A the cat", "A", True),
        ("Answer: A dog is an animal", "A", True),
        ("The answer is B. I think so.", "B", True),
        ("Option A is wrong. Option B is wrong. Therefore C.", "C", True),
        ("Option A is wrong. Option B is wrong. Therefore C.", "B", False),
        ("Options: choice A fails, choice B fails, so **D**.", "D", True),
        ("Answer: C. (Option D is too large.)", "C", True),
        ("Option A: Paris, Option B: Rome. I choose A", "A", True),
        ("So the answer is option B, and not C", "B", True),
        ("The correct option is B; A is too small", "B", True),
        ("Choice: B", "B", True),
        ("I pick option A Paris", "A", True),
        ("I would select (D), because C moves", "D", True),
        ("Option A Paris", "A", True),
    ],
)
def test_choice_letter(answer: str, reference: str, right: bool) -> None:
    assert choice_letter(answer, reference) is right


def test_patterns_and_schemas() -> None:
    assert regex("the result: 42 km", r"4\d km")
    assert not regex("the result: 43 m", r"4\d km")
    schema = json.dumps({"type": "object", "required": ["a"]})
    assert json_schema('Here:\n```json\n{"a": 1}\n```', schema)
    assert not json_schema('{"b": 1}', schema)
    assert not json_schema("a", schema)


@pytest.mark.parametrize(
    "answer",
    [
        '```JSON\n{"a": 1}\n```\nDone.',
        'Here:\r\n```json\r\n{"a": 1}\r\n```\r\nDone.',
        '```bash\nls\n```\n```json\n{"a": 1}\n```\nDone.',
        '```json\n{"a": "```py\\nx```"}\n```\nDone.',
        '```json\n{"a": "x```",\n"b": "```y"}\n```\n',
        '1. So:\n   ```json\n   {"a": 1}\n   ```\n',
        '~~~json\n{"a": 1}\n~~~\n```text\nb\n```',
        '```json\n{"a": 1}```',
        '{"a": "```json",\n"b": "```"}',
    ],
)
def test_json_is_found_between_fences(answer: str) -> None:
    schema = json.dumps({"type": "object", "required": ["a"]})
    assert json_schema(answer, schema)
    assert not json_schema(answer.replace('"a"', '"c"'), schema)


HOSTILE = [
    "",
    "\x00",
    "7" * 100_000,
    "(" * 100_000,
    "{" * 50_000,
    "\ud800",
    "a" * 40 + "!",
    "A" * 50_000,
]


@pytest.mark.parametrize("name", sorted(set(SCORERS) - {"unit_tests"}))
def test_no_hostile_answer_hangs_or_crashes_a_scorer(name: str) -> None:
    references = {"regex": r"^(a+)+$", "json_schema": '{"type": "string", "pattern": "^(a+)+$"}'}
    for answer in HOSTILE:
        assert SCORERS[name](answer, references.get(name, "42")) in (True, False)


@pytest.mark.parametrize("part", ["7", "7,", "7.", "-", "$-", "7e", "7e+", "1,e"])
def test_a_huge_answer_of_numbers_takes_no_time(part: str) -> None:
    start = time.process_time()
    assert not last_number(part * 1_000_000, "42")
    assert time.process_time() - start < 5


@pytest.mark.parametrize("answer", ["1e999", "Infinity", "-Infinity", "NaN", "1" + "0" * 400])
@pytest.mark.parametrize("keyword", ["multipleOf", "minimum", "maximum", "enum", "uniqueItems"])
def test_a_number_beyond_all_numbers_is_scored(answer: str, keyword: str) -> None:
    rule: object = {"enum": [0.01], "uniqueItems": True}.get(keyword, 0.01)
    schema = json.dumps({"properties": {"price": {keyword: rule}}})
    given = json_schema(f'{{"price": {answer}}}', schema)
    assert given in (True, False)
    assert not (given and keyword in ("multipleOf", "enum"))


OWN = "def closeness(answer, row):\n    return 1 / (1 + abs(float(answer or 0) - row['value']))\n"


def _source(folder: Path, scorer: str) -> TaskSource:
    (folder / "q.jsonl").write_text('{"prompt": "4+5?", "answer": "9", "value": 9}\n')
    return TaskSource("t", {"search": folder / "q.jsonl"}, scorer=scorer, folder=folder)


def test_a_function_of_ones_own_scores_answer_and_line(tmp_path: Path) -> None:
    (tmp_path / "mine_scoring.py").write_text(OWN)
    task = load_task(_source(tmp_path, "mine_scoring:closeness"))
    question = task.splits["search"][0]
    assert task.score(question, Completion("8", 1, "stop")) == 0.5
    assert task.score(question, Completion("<think>9", 1, "length")) == 0.0
    same = load_task(_source(tmp_path, "mine_scoring:closeness"))
    (tmp_path / "mine_scoring.py").write_text(OWN + "# another version\n")
    other = load_task(_source(tmp_path, "mine_scoring:closeness"))
    assert task.content_hash() == same.content_hash() != other.content_hash()
    with pytest.raises(EvaluationError, match="could not convert"):
        task.score(question, Completion("eight", 1, "stop"))


def test_a_scorers_file_is_found_beside_the_spec_or_the_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is no part of what identifies the measurement."""
    spec, questions, working = (tmp_path / name for name in ("spec", "questions", "working"))
    for folder in (spec, questions, working):
        folder.mkdir()
    monkeypatch.chdir(working)
    source = replace(_source(questions, "mine.py:closeness"), folder=spec)
    with pytest.raises(SpecError, match=f"{spec}, {questions}, {working}"):
        load_task(source)
    hashes = set()
    for folder in (working, questions, spec):
        (folder / "mine.py").write_text(OWN)
        hashes.add(load_task(source).content_hash())
        (folder / "mine.py").unlink()
    assert len(hashes) == 1
    (working / "mine.py").write_text("def closeness(answer, row): return 7")
    (spec / "mine.py").write_text(OWN)
    assert load_task(source).content_hash() in hashes


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        (OWN, "mine_broken:missing", "has no attribute 'missing'"),
        (OWN, "no_such_module:closeness", "No module named"),
        ("def f(answer, row): return 'high'", "mine_broken:f", "could not convert"),
        ("def f(answer, row): return 7", "mine_broken:f", r"within \[0, 1\], but mine_broken:f"),
        ("def f(answer): return 1", "mine_broken:f", "positional argument"),
        ("import sys\ndef f(answer, row): sys.exit(3)", "mine_broken:f", "fails: SystemExit: 3"),
        ("import sys\nsys.exit('no model')", "mine_broken:f", "fails: SystemExit: no model"),
        ("def f(answer, row): return f(answer, row)", "mine_broken:f", "itself: RecursionError"),
        ("def f(answer, row): bytearray(1 << 33)", "mine_broken:f", "itself: MemoryError"),
        ("import os\ndef f(answer, row): os._exit(1)", "mine_broken:f", "the scorer ended"),
    ],
)
def test_what_is_no_scorer_is_refused_in_one_line(
    tmp_path: Path, code: str, name: str, message: str
) -> None:
    (tmp_path / "mine_broken.py").write_text(code)
    with pytest.raises(SpecError, match=message) as caught:
        load_task(_source(tmp_path, name))
    assert "\n" not in str(caught.value)


def test_scorers_are_checked_with_the_spec(tmp_path: Path) -> None:
    def spec(scorer: str) -> Path:
        task = {"name": "demo", "files": {"search": "search.jsonl"}, "scorer": scorer}
        return write_spec(tmp_path, evaluation={"tasks": [task]})

    with pytest.raises(SpecError, match="did you mean 'last_number'"):
        load_inputs(spec("last_numbr"))
    (tmp_path / "scoring.py").write_text("def f(answer, row): return len(answer) > 1")
    assert load_inputs(spec("scoring:f")).tasks[0].scorer.startswith("scoring:f ")
    assert load_inputs(spec(f"{tmp_path}/scoring.py:f"))


def test_humaneval_rows_name_their_entry_point(tmp_path: Path) -> None:
    row = {
        "prompt": "def add(a, b):\n    '''Add.'''\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
        "entry_point": "add",
    }
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    source = TaskSource("t", {"search": tmp_path / "q.jsonl"}, answer="test", scorer="unit_tests")
    task = load_task(source)
    question = task.splits["search"][0]
    right = Completion("```python\ndef add(a, b):\n    return a + b\n```", 9, "stop")
    assert task.score(question, right) == 1.0
    assert task.score(question, Completion("def add(a, b): return 0", 9, "stop")) == 0.0


@pytest.mark.parametrize(
    ("scorer", "reference", "message"),
    [
        ("regex", "(a", r"questions.jsonl:2: '\(a' is no regular expression: missing \)"),
        (
            "json_schema",
            '{"type": "objekt"}',
            r":2: .* is no JSON Schema: 'objekt'",
        ),
        ("json_schema", {"required": 3}, r"questions.jsonl:2: .* is no JSON Schema: 3 is not"),
        (
            "json_schema",
            {"$ref": "http://127.0.0.1:1/x"},
            r":2: .* its \$ref 'http:.* is not in it",
        ),
        ("json_schema", {"items": {"$ref": "#/$defs/a"}}, r"its \$ref '#/\$defs/a' is not in it"),
        (
            "json_schema",
            {"items": {"$id": "http://x/y", "$ref": "#/$defs/a"}, "$defs": {"a": True}},
            r"its \$ref '#/\$defs/a' is not in it",
        ),
        (
            "json_schema",
            {"$dynamicRef": "http://127.0.0.1:1/x"},
            r"its \$dynamicRef 'http:.* is not",
        ),
        ("json_schema", {"not": {"$dynamicRef": "#a"}}, r"its \$dynamicRef '#a' is not in it"),
        ("json_schema", {"x": {"type": "objekt"}, "$ref": "#/x"}, r":2: .* 'objekt' is not valid"),
        (
            "json_schema",
            {"x": {"not": {"$ref": "y"}}, "$ref": "#/x"},
            r"its \$ref 'y' is not in it",
        ),
        (
            "json_schema",
            {"$ref": "#/required/x", "required": ["a"]},
            r"its \$ref '#/required/x' is",
        ),
        (
            "json_schema",
            {"$schema": "http://json-schema.org/draft-04/schema#", "patternProperties": {"(": {}}},
            r"no JSON Schema: '\(' is no regular expression",
        ),
        ("json_schema", "[1]", r"questions.jsonl:2: .* is no JSON Schema: it must be an object"),
        ("last_number", "twelve", r"questions.jsonl:2: 'twelve' holds no number"),
        ("choice_letter", "B) Paris", r":2: 'B\) Paris' must be the letter of a choice alone"),
    ],
)
def test_a_reference_that_a_scorer_cannot_use_is_refused(
    tmp_path: Path, scorer: str, reference: object, message: str
) -> None:
    fitting = {"regex": "a+", "json_schema": {"type": "string"}}.get(scorer, "1")
    with pytest.raises(SpecError, match=message):
        _load_references(tmp_path, scorer, [fitting, reference])


@pytest.mark.parametrize(
    ("scorer", "references"),
    [
        ("last_number", ["1,234", "$5", "-3", 7, 0.5, "#### 18", "12 apples", "10-12"]),
        ("choice_letter", ["B", "(C)", "d", "A.", "**I**", " B ", 2]),
    ],
)
def test_references_that_an_answer_can_be_are_kept(
    tmp_path: Path, scorer: str, references: list[object]
) -> None:
    task = _load_references(tmp_path, scorer, references)
    for question in task.splits["search"]:
        assert task.score(question, Completion(question.answer, 2, "stop")) == 1.0


def test_schemas_may_refer_to_their_own_parts(tmp_path: Path) -> None:
    number = {"type": "number"}
    schemas: list[object] = [
        "true",
        {"$defs": {"n": number}, "items": {"$ref": "#/$defs/n"}},
        {"$id": "http://x/y", "$defs": {"n": {"$id": "n", **number}}, "items": {"$ref": "n"}},
        {"properties": {"inside": {"$ref": "#"}, "$ref": number}},
        {"definitions": {"n": {"$anchor": "n", **number}}, "items": {"$ref": "#n"}},
        {"$defs": {"n": {"$dynamicAnchor": "n", **number}}, "items": {"$dynamicRef": "#n"}},
        {"items": {"$id": "http://x/y", "$ref": "#/$defs/n", "$defs": {"n": number}}},
        {"x-parts": {"n": number}, "items": {"$ref": "#/x-parts/n"}},
        {"not": {"const": {"$ref": "no reference"}}},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "items": {"$ref": "#/definitions/n"},
        }
        | {"definitions": {"n": number}},
    ]
    task = _load_references(tmp_path, "json_schema", schemas)
    for question in task.splits["search"]:
        assert task.score(question, Completion("[1, 2]", 2, "stop")) == 1.0


def _load_references(folder: Path, scorer: str, references: list[object]) -> Task:
    rows = [{"prompt": f"p{i}", "answer": answer} for i, answer in enumerate(references)]
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(TaskSource("t", {"search": path}, scorer=scorer))
