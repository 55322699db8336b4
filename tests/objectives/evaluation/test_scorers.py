"""What counts as the answer."""

import pytest

from mergefront.objectives.evaluation.scorers import exact_match, final_answer, math_equal


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("9", "9"),
        (" 9\n", "9"),
        ("<think>3+4=7</think>9", "9"),
        ("<think>a</think>b</think> 9", "9"),
        ("3+4=7</think>9", "9"),  # some templates write the opening marker themselves
        ("<think>3+4=7; so 9", None),
    ],
)
def test_final_answer_follows_the_reasoning(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_an_answer_inside_unfinished_reasoning_is_wrong() -> None:
    assert not exact_match("<think>9", "9")
    assert exact_match("<think>8</think>9", " 9 ")
    assert not exact_match("<think>9</think>8", "9")


@pytest.mark.parametrize(
    ("text", "reference", "right"),
    [
        (r"The answer is \boxed{\frac12}.", "0.5", True),
        ("<think>1</think>so 42", "42", True),
        ("so $x=3$", "4", False),
        ("<think>42", "42", False),
        ("1,234", "1234", True),
        (r"\boxed{070}", "70", True),
        ("", "3", False),
    ],
)
def test_mathematical_answers_are_compared_by_value(
    text: str, reference: str, right: bool
) -> None:
    assert math_equal(text, reference) is right
