"""What is wrong with an answer is seen in its text; what is right is left alone."""

import time

import pytest

from mergefront.objectives.evaluation import METRICS, Answer, Completion, ObjectiveMetric
from mergefront.objectives.evaluation.diagnosis import SIGNS, longest_loop, signs_of

ENGLISH = "What is two plus two?"


@pytest.mark.parametrize(
    ("text", "finish", "signs"),
    [
        ("<think>2 and 2</think>It is 4.", "stop", ()),
        ("Wait, " * 40, "length", ("repetition",)),
        ("Let me see. " + "So 2+2=4, hence 4. But wait. " * 8, "stop", ("repetition",)),
        ("0.333333333333", "stop", ()),
        ("", "stop", ("empty",)),
        ("<think>4</think>\n", "stop", ("empty",)),
        ("<think>2 and", "length", ("unfinished",)),
        ("4<|im_end|>\n<|im_start|>user\nNext", "stop", ("template_leak",)),
        ("<|channel|>analysis 2 <|channel|>final<|message|>4", "stop", ()),
        ("答案是四,因为二加二等于四", "stop", ("language_drift",)),
        ("The angle α + β = γ, so Σ = 4", "stop", ()),
    ],
)
def test_signs(text: str, finish: str, signs: tuple[str, ...]) -> None:
    completion = Completion(text, 9, finish)  # type: ignore[arg-type]
    assert signs_of(completion, ENGLISH) == signs


def test_an_answer_in_the_language_of_its_question_does_not_drift() -> None:
    completion = Completion("答案是四", 9, "stop")
    assert signs_of(completion, "二加二等于多少? two") == ()


def test_loops_have_their_length_and_long_texts_cost_little() -> None:
    assert longest_loop("abc" * 40) == 120
    assert longest_loop("the quick brown fox jumps over the lazy dog " * 3) == 0
    start = time.monotonic()
    for text in ("7" * 100_000, "ab" * 100_000, "\x00\ud800" * 50_000):
        assert signs_of(Completion(text, 9, "length"), ENGLISH)
    assert time.monotonic() - start < 5


def test_shares_are_metrics_and_constraints() -> None:
    answers = [
        Answer(f"t/{i}", "t", 1.0, 3, "stop", "", signs=("repetition",) * (i < 2))
        for i in range(8)
    ]
    value, error = ObjectiveMetric(METRICS["repetition"]).estimate(answers)
    assert value == 0.25
    assert error > 0
    assert set(SIGNS) <= set(METRICS)
    assert all(METRICS[sign].direction == "minimize" for sign in SIGNS)
