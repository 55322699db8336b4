"""Linear and neural-linear bandits, by hand and on problems with a known best arm."""

import numpy as np
import pytest

from mergefront.samplers.simmerge import ArmFeatures, LinUCB, Merge, NeuralLinear

NOTHING = np.zeros((0, 1))


def test_the_bound_by_hand() -> None:
    """One feature: A = ridge + sum x^2, b = sum x r with standardised rewards."""
    tried, rewards = np.array([[1.0], [2.0]]), np.array([3.0, 5.0])  # mean 4, deviation 1
    bound = LinUCB(alpha=2.0, ridge=0.5).bounds(np.array([[3.0]]), tried, rewards, NOTHING)
    A, b = 0.5 + 1 + 4, -1.0 + 2.0
    assert bound[0] == pytest.approx(4 + (3 * b / A + 2.0 * 3 / A**0.5))


def test_without_rewards_the_widest_arm_is_first() -> None:
    bounds = LinUCB().bounds(np.array([[1.0], [2.0]]), NOTHING, np.zeros(0), NOTHING)
    assert bounds.tolist() == pytest.approx([1.0, 2.0])


def test_an_arm_under_way_is_less_attractive_but_not_less_promising() -> None:
    arms = np.eye(2)
    tried, rewards = np.eye(2), np.array([0.0, 1.0])
    empty = np.zeros((0, 2))
    free, busy = (LinUCB().bounds(arms, tried, rewards, p) for p in (empty, arms[1:]))
    assert busy[1] < free[1]
    assert busy[0] == pytest.approx(free[0])
    assert LinUCB(alpha=0.0).bounds(arms, tried, rewards, arms[1:]).tolist() == pytest.approx(
        LinUCB(alpha=0.0).bounds(arms, tried, rewards, empty).tolist()
    )


def test_out_of_range_options_are_refused() -> None:
    with pytest.raises(ValueError, match="alpha=-1"):
        LinUCB(alpha=-1.0)
    with pytest.raises(ValueError, match="ridge=0"):
        NeuralLinear(ridge=0.0)


def test_the_network_learns_what_is_not_linear() -> None:
    """The reward is the sign of a product: no linear function of the features."""
    rng = np.random.default_rng(0)
    tried = rng.choice([-1.0, 1.0], size=(80, 2)) + 0.1 * rng.normal(size=(80, 2))
    rewards = np.sign(tried[:, 0] * tried[:, 1])
    arms = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
    empty = np.zeros((0, 2))
    learned = NeuralLinear(alpha=0.0).bounds(arms, tried, rewards, empty)
    assert min(learned[0], learned[2]) > max(learned[1], learned[3]) + 0.5
    linear = LinUCB(alpha=0.0).bounds(arms, tried, rewards, empty)
    assert np.ptp(linear) < 0.5
    few = NeuralLinear(alpha=0.0).bounds(arms, tried[:5], rewards[:5], empty)
    assert few.tolist() == LinUCB(alpha=0.0).bounds(arms, tried[:5], rewards[:5], empty).tolist()


def _merges() -> list[Merge]:
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(30, 2))
    signals = hidden @ rng.normal(size=(2, 20))
    return [
        Merge(("a", "b"), "linear", {f"s{k}": value for k, value in enumerate(row)})
        for row in signals
    ]


def test_arms_have_components_of_their_signals_apart_for_each_operator() -> None:
    merges = _merges()
    features = ArmFeatures(merges, ["linear", "ties"], n_components=6)
    assert features.dim == 2 * (1 + 2)  # twenty signals, but two directions
    rows = np.array([features(merge) for merge in merges])
    assert rows[:, 3:].tolist() == np.zeros((30, 3)).tolist()
    assert (rows[:, 1:3] ** 2).mean(axis=0) * 3 == pytest.approx([1.0, 1.0])
    other = features(Merge(("a", "b"), "ties", merges[0].features))
    assert other[3:].tolist() == rows[0, :3].tolist()
    with pytest.raises(ValueError, match="At least one merge"):
        ArmFeatures([], ["linear"])
