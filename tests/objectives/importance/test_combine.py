"""From raw scores to importance, against hand calculations."""

import math

import pytest

from mergefront.objectives.importance import combine, rescale, robust, smooth


def test_rescale_maps_to_the_unit_interval() -> None:
    assert rescale({"a": 2.0, "b": 6.0, "c": 3.0}) == {"a": 0.0, "b": 1.0, "c": 0.25}
    assert rescale({"a": 2.0, "b": 2.0}) == {"a": 0.5, "b": 0.5}


def test_robust_counts_in_median_absolute_deviations() -> None:
    scores = robust({"a": 1.0, "b": 2.0, "c": 3.0, "d": 1000.0, "e": 2.0})
    # Median 2, absolute deviations 1 0 1 998 0: their median is 1.
    assert scores["b"] == scores["e"] == 0.5
    assert scores["c"] == pytest.approx(1 / (1 + math.exp(-1 / 1.4826)))
    assert scores["a"] == pytest.approx(1 - scores["c"])
    assert scores["d"] == pytest.approx(1.0)


def test_robust_falls_back_where_most_scores_are_equal() -> None:
    assert robust({"a": 1.0, "b": 1.0, "c": 1.0, "d": 3.0}) == {"a": 0, "b": 0, "c": 0, "d": 1}


def test_smooth_averages_neighbours_of_one_kind() -> None:
    scores = {"layer_010.mlp": 4.0, "layer_002.mlp": 8.0, "layer_001.mlp": 0.0, "head": 7.0}
    smoothed = smooth({**scores, "layer_002.attn": 100.0})
    assert smoothed == {**scores, "layer_002.mlp": 5.0, "layer_002.attn": 100.0}


def test_combine_averages_signals_and_keeps_a_floor() -> None:
    names = [f"layer_{i:03d}" for i in range(5)]
    low = dict(zip(names, [-1e9, 0.0, 1.0, 2.0, 3.0], strict=True))
    high = dict(zip(names, [1e9, 0.0, 1.0, 2.0, 3.0], strict=True))
    assert combine([low])["layer_000"] == 0.05
    assert combine([high])["layer_000"] == 1.0
    assert combine([low, high])["layer_000"] == pytest.approx(0.5)
