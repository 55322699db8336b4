"""Chains of merges, composed from two-way predictions."""

from itertools import permutations

import pytest

from mergefront.samplers.simmerge import Prediction, rank_chains

GAINS = {
    ("a", "b", "linear"): 0.1,
    ("a", "c", "linear"): 0.3,
    ("b", "c", "linear"): 0.0,
    ("a", "b", "ties"): 0.2,
    ("a", "c", "ties"): -0.1,
    ("b", "c", "ties"): 0.2,
}


def _predictions(unknown: str = "") -> dict[tuple[str, str, str], Prediction]:
    found = {}
    for (left, right, operator), gain in GAINS.items():
        prediction = Prediction(gain, 0.1, unknown not in (left, right))
        found[left, right, operator] = found[right, left, operator] = prediction
    return found


def test_pairs_are_ranked_and_listed_once_where_their_order_does_not_matter() -> None:
    ranked = rank_chains("abc", ["linear", "ties"], _predictions())
    assert len(ranked) == 6
    assert (ranked[0].chain.models, ranked[0].chain.operators) == (("a", "c"), ("linear",))
    assert [one.score for one in ranked] == sorted((g for g in GAINS.values()), reverse=True)


def test_both_orders_are_listed_where_they_differ() -> None:
    predictions = _predictions()
    predictions["c", "a", "linear"] = Prediction(0.4, 0.1)
    ranked = rank_chains("abc", ["linear"], predictions)
    assert len(ranked) == 4
    assert ranked[0].chain.models == ("c", "a")


def test_a_third_model_dilutes_the_gain_so_far() -> None:
    ranked = rank_chains("abc", ["linear", "ties"], _predictions(), max_models=3)
    chains = {(one.chain.models, one.chain.operators): one for one in ranked}
    one = chains[("a", "c", "b"), ("linear", "ties")]
    # Two thirds of (a, c) by linear, and the mean of (a, b) and (c, b) by ties.
    assert one.prediction.gain == pytest.approx(2 / 3 * 0.3 + (0.2 + 0.2) / 2)
    assert one.prediction.standard_deviation == pytest.approx(((2 / 3 * 0.1) ** 2 + 0.01) ** 0.5)
    assert ranked[0] == one
    # |S|! |O|^(|S| - 1) chains of three, half as many as the first two commute; and six pairs.
    assert len(ranked) == 6 * 4 // 2 + 6


def test_scores_of_the_models_count() -> None:
    scores = {"a": 0.1, "b": 0.9, "c": 0.9}
    ranked = rank_chains("abc", ["linear", "ties"], _predictions(), scores=scores)
    assert ranked[0].chain.models == ("b", "c")
    assert ranked[0].score == pytest.approx(0.9 + 0.2)
    with pytest.raises(ValueError, match="'b' has none"):
        rank_chains("abc", ["linear"], _predictions(), scores={"a": 0.1, "c": 0.2})


def test_what_is_out_of_range_comes_last() -> None:
    ranked = rank_chains("abc", ["linear", "ties"], _predictions(unknown="c"), max_models=3)
    known = [one.prediction.is_known for one in ranked]
    assert known == sorted(known, reverse=True)
    assert sum(known) == 2


def test_a_beam_keeps_the_best() -> None:
    names = "abcdef"
    predictions = {
        (left, right, "linear"): Prediction(0.01 * (ord(left) + ord(right) - 200), 0.1)
        for left, right in permutations(names, 2)
    }
    narrow = rank_chains(names, ["linear"], predictions, max_models=4, beam=3)
    wide = rank_chains(names, ["linear"], predictions, max_models=4)
    assert narrow[0].chain == wide[0].chain
    assert len(narrow) == 9


def test_fewer_than_two_models_are_no_merge() -> None:
    with pytest.raises(ValueError, match="max_models >= 2"):
        rank_chains("ab", ["linear"], {}, max_models=1)
