"""Ratios of the times at which two ways of searching reach the same regret."""

import numpy as np
import pytest
from clocks import time_ratios


def _runs(n: int, hours_each: float) -> list[list[tuple[float, float]]]:
    noise = np.random.default_rng(0).uniform(0.9, 1.1, size=n)
    return [[(hours_each * i, factor / i) for i in range(1, 11)] for factor in noise]


def test_the_same_searches_at_half_the_speed_take_twice_as_long() -> None:
    for ratio in time_ratios(_runs(8, 1.0), _runs(8, 2.0)):
        assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2.0, 2.0, 2.0))


def test_the_goal_is_what_both_reach() -> None:
    soon, late = _runs(8, 1.0), [run[:5] for run in _runs(8, 1.0)]
    end = np.mean([run[-1][1] for run in late])
    assert [ratio.goal for ratio in time_ratios(soon, late)] == pytest.approx(
        [end, 1.1 * end, 1.3 * end]
    )


def test_an_interval_holds_its_ratio_and_has_a_width_where_runs_differ() -> None:
    fast = [[(1.0 + 0.1 * i, 0.5), (2.0 + 0.3 * i, 0.1)] for i in range(10)]
    slow = [[(2.0 + 0.2 * i, 0.5), (4.0 + 0.5 * (9 - i), 0.1)] for i in range(10)]
    at_the_end = time_ratios(fast, slow)[0]
    assert at_the_end.low <= at_the_end.value <= at_the_end.high
    assert at_the_end.low < at_the_end.high
