"""What counts as the answer."""

import time
from pathlib import Path

import pytest

from mergefront.errors import EvaluationError
from mergefront.objectives.evaluation import Completion, Question, TaskSource, load_task
from mergefront.objectives.evaluation.scorers import ScoringProcess, exact_match, math_equal


def test_white_space_around_an_answer_does_not_count() -> None:
    assert exact_match("9\n", " 9 ")
    assert not exact_match("9 9", "9")


@pytest.mark.parametrize("scorer", ["exact_match", "math"])
def test_an_answer_inside_unfinished_reasoning_is_wrong(tmp_path: Path, scorer: str) -> None:
    (tmp_path / "q.jsonl").write_text('{"prompt": "4+5?", "answer": "9"}\n')
    source = TaskSource("t", {"search": tmp_path / "q.jsonl"}, scorer=scorer)
    task, question = load_task(source), Question("1", "4+5?", "9")
    assert task.score(question, Completion("<think>9", 9, "length")) == 0.0
    assert task.score(question, Completion("<think>8</think>9", 9, "stop")) == 1.0
    assert task.score(question, Completion("<think>9</think>8", 9, "stop")) == 0.0
    assert task.score(question, Completion("9", 9, "length", unclosed=True)) == 0.0


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        (r"The answer is \boxed{\frac12}.", "0.5", True),
        ("so 42", "42", True),
        ("so $x=3$", "4", False),
        ("1,234", "1234", True),
        (r"\boxed{070}", "70", True),
        ("", "3", False),
        ("\x00 \\boxed{42} \ud800", "42", True),
        ("lorem 12, so $x_1 = 3$, " * 4000 + r"so \boxed{42}", "42", True),
        ("(" * 5000 + "41" + ")" * 5000, "42", False),
        ("7" * 100_000, "42", False),
        ("$" * 100_000, "42", False),
    ],
)
def test_mathematical_answers_are_compared_by_value(
    text: str, reference: str, right: bool
) -> None:
    assert math_equal(text, reference) is right


HOSTILE = [
    r"\boxed{9^{9^{9^{9}}}}",
    "$10^{10^{10}}$",
    r"\boxed{100000000!}",
    r"\boxed{2^{1000000000}}",
    r"\boxed{" + "{" * 500 + "42" + "}" * 500 + "}",
    r"$\sum_{n=1}^{10^9} n$",
    r"\boxed{" + "1+" * 50_000 + "1}",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_answer_hangs_a_worker(text: str) -> None:
    equality = Path(exact_match.__code__.co_filename).with_name("equality.py")
    process = ScoringProcess(f"{equality}:equal", seconds=0.3)
    start = time.monotonic()
    assert process(text, "42") == 0.0
    assert time.monotonic() - start < 20.0
    process.close()


@pytest.fixture
def scorers(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(
        "import os, time\n"
        "def crash(answer, reference):\n"
        "    print('noise')\n"
        "    if answer == 'die': os._exit(1)\n"
        "    if answer == 'sleep': time.sleep(60)\n"
        "    if answer == 'memory': bytearray(1 << 33)\n"
        "    if answer == 'raise': raise KeyError('no')\n"
        "    return len(answer) / 10\n"
    )
    return path


def test_what_ends_its_process_is_wrong_and_the_next_answer_is_scored(scorers: Path) -> None:
    process = ScoringProcess(f"{scorers}:crash", patience=2.0)
    assert process("right", "") == 0.5
    for answer in ("die", "sleep", "memory"):
        assert process(answer, "") == 0.0
        assert process("1\n3", "") == 0.3
    process.close()


def test_an_answer_that_counts_0_for_its_process_is_told(
    scorers: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = ScoringProcess(f"{scorers}:crash")
    for answer, told in (("die", "ended, or took too long"), ("memory", "MemoryError")):
        assert process(answer, "") == 0.0
        assert told in caplog.messages[-1] and "own.py:crash: an answer counts 0" in caplog.text
    process.close()


def test_what_a_scorer_loads_when_first_asked_is_no_answers_doing(tmp_path: Path) -> None:
    path = tmp_path / "lazy.py"
    path.write_text(
        "import functools, time\n"
        "@functools.cache\n"
        "def load():\n"
        "    while time.process_time() < 2.5: pass\n"
        "def score(answer, row):\n"
        "    load()\n"
        "    return 1.0\n"
    )
    process = ScoringProcess(f"{path}:score", seconds=0.2, known=("9", {}))
    assert process("9", {}) == 1.0
    process.close()


def test_a_scorer_that_does_not_work_is_an_error(scorers: Path) -> None:
    process = ScoringProcess(f"{scorers}:crash")
    with pytest.raises(EvaluationError, match="crash fails: KeyError: 'no'"):
        process("raise", "")
    with pytest.raises(EvaluationError, match="has no attribute 'missing'"):
        ScoringProcess(f"{scorers}:missing")("x", "")
