"""The simulated clock, where the answer is known."""

import numpy as np
import pytest
from clock import asynchronous, evaluation_times, synchronous


def _nothing(number: int) -> float:
    return 0.0


def test_equal_evaluations_and_a_free_lock_keep_everybody_busy() -> None:
    for simulate in (asynchronous, synchronous):
        use = simulate(4, [10.0] * 40, _nothing)
        assert use.overall == pytest.approx(1.0)
        assert use.waiting == 0.0


def test_batches_wait_for_the_slowest() -> None:
    use = synchronous(2, [10.0, 30.0, 10.0, 30.0], _nothing)
    assert use.overall == pytest.approx(80 / 120)


def test_asynchronous_workers_do_not() -> None:
    use = asynchronous(2, [10.0, 30.0, 10.0, 10.0], _nothing)
    assert use.overall == pytest.approx(1.0)


def test_a_lock_that_is_held_too_long_is_the_limit() -> None:
    use = asynchronous(8, [10.0] * 400, lambda number: 5.0)
    assert use.utilisation == pytest.approx(2 / 8, abs=0.01)  # a claim each 5 s keeps two busy
    assert use.waiting == pytest.approx(30.0, abs=1.0)


def test_times_have_the_mean_and_variation_asked_for() -> None:
    times = np.array(evaluation_times(200_000, 300.0, 0.6, np.random.default_rng(0)))
    assert times.mean() == pytest.approx(300.0, rel=0.01)
    assert times.std() / times.mean() == pytest.approx(0.6, rel=0.02)
