"""When a swapped engine counts as a fresh one: by its tensors and by what it decodes."""

from dataclasses import replace

import pytest

from mergefront.objectives.evaluation.backends.vllm_swap.canary import (
    Answered,
    Canary,
    differing,
    fresh_canary,
    repeatability,
)

FIRST = (Answered((5, 7), (-0.1, -2.0)), Answered((4, 4), (-0.3, -0.4)))
WEIGHTS = ({"q.weight": "f (2, 2) aa", "~rotary.cache": "f (8, 2) bb"},)
FRESH = fresh_canary(WEIGHTS, FIRST, FIRST)


def _answers(tokens: tuple[int, ...], *logprobs: float) -> tuple[Answered, ...]:
    return (Answered(tokens, logprobs), FIRST[1])


def test_the_same_is_the_same() -> None:
    assert Canary(WEIGHTS, FIRST).difference(FRESH) is None


def test_a_tensor_that_differs_is_named() -> None:
    weights = ({**WEIGHTS[0], "q.weight": "f (2, 2) ab"},)
    swapped = Canary(weights, FIRST)
    assert swapped.difference(FRESH) == "1 tensor(s) differ: q.weight"
    assert swapped.difference(FRESH, frozenset({"q.weight"})) is None


def test_a_tensor_that_is_gone_is_named() -> None:
    assert "q.weight" in str(Canary(({},), FIRST).difference(FRESH))


def test_computed_tensors_may_reach_further_but_not_hold_something_else() -> None:
    longer = ({**WEIGHTS[0], "~rotary.cache": "f (16, 2) cc"},)
    other = ({**WEIGHTS[0], "~rotary.cache": "f (8, 2) cc"},)
    assert differing(longer, WEIGHTS) == frozenset()
    assert differing(other, WEIGHTS) == {"~rotary.cache"}


def test_decoded_tokens_are_compared() -> None:
    """Right weights are not enough: a packed copy or a captured graph may hold old ones."""
    swapped = Canary(WEIGHTS, _answers((5, 8), -0.1, -2.0))
    assert swapped.difference(FRESH) == "1 of 2 decoded answers differ"


def test_log_probabilities_find_a_model_that_is_nearly_the_same() -> None:
    swapped = Canary(WEIGHTS, _answers((5, 7), -0.1, -2.1))
    assert "differ by up to 0.1" in str(swapped.difference(FRESH))
    rounded = Canary(WEIGHTS, _answers((5, 7), -0.1, -2.0004))
    assert rounded.difference(FRESH) is None


def test_an_engine_that_does_not_repeat_itself_is_not_asked_to() -> None:
    again = _answers((5, 9), -0.1, -2.0)
    fresh = fresh_canary(WEIGHTS, FIRST, again)
    assert fresh.unsteady == {0}
    assert Canary(WEIGHTS, again).difference(fresh) is None
    wide = fresh_canary(WEIGHTS, FIRST, _answers((5, 7), -0.1, -2.02))
    assert Canary(WEIGHTS, _answers((5, 7), -0.1, -2.1)).difference(wide) is None
    assert replace(wide, unsteady=frozenset()) == wide


def test_what_is_not_repeated_is_counted() -> None:
    again = _answers((5, 9), -0.1, -2.0)
    found = repeatability(FIRST, FIRST, again)
    assert (found.n_again, found.n_reordered, found.exact) == (0, 1, False)
    assert str(found).startswith("of 2 answers 0 differed when they were asked for again, 1 ")
    assert repeatability(FIRST, FIRST, FIRST).exact


def test_answers_of_other_batches_may_differ_by_rounding_and_no_more() -> None:
    # The second tokens differ: nearly as probable is rounding. What follows is another text.
    near = _answers((5, 9), -0.1, -2.01)
    far = _answers((5, 9), -0.1, -2.15)
    assert repeatability(FIRST, FIRST, near).largest == pytest.approx(0.01)
    assert repeatability(FIRST, FIRST, near).is_rounding("float32")
    assert not repeatability(FIRST, FIRST, far).is_rounding("float32")
    assert repeatability(FIRST, FIRST, far).is_rounding("bfloat16")
    behind = _answers((6, 9), -0.1, -9.0)
    assert repeatability(FIRST, FIRST, behind).largest == 0.0
