"""AP-BMM's re-ranking, term by term, against hand calculations."""

import math

import pytest
import torch

from mergefront.samplers import Rerank
from mergefront.samplers._acqf.rerank import frontier_gap, proximity

# A front with a narrow and a wide gap, and a dominated point that must not count.
VALUES = torch.tensor([[0.0, 1.0], [0.2, 0.8], [1.0, 0.0], [0.1, 0.1]], dtype=torch.double)


def test_the_middle_of_the_widest_gap_is_worth_most() -> None:
    middles = torch.tensor([[0.6, 0.4], [0.1, 0.9]], dtype=torch.double)
    wide, narrow = frontier_gap(middles, VALUES).tolist()
    assert wide == pytest.approx(1.0)
    # The gap's own quarter, or what the wide one lends it from 0.5 sqrt 2 away at width
    # sqrt 2 / 2: exp(-1/2).
    assert narrow == pytest.approx(math.exp(-0.5))
    far = torch.tensor([[5.0, 5.0]], dtype=torch.double)
    assert frontier_gap(far, VALUES).item() < 1e-6


def test_gaps_do_not_depend_on_units() -> None:
    candidates = torch.tensor([[0.6, 0.4], [0.3, 0.6]], dtype=torch.double)
    units = torch.tensor([1.0, 1000.0], dtype=torch.double)
    scaled = frontier_gap(candidates * units, VALUES * units)
    assert torch.allclose(scaled, frontier_gap(candidates, VALUES))


def test_without_a_front_of_two_points_there_is_no_gap() -> None:
    assert frontier_gap(VALUES, VALUES[:1]).tolist() == [0.0] * 4
    three = torch.rand(5, 3, dtype=torch.double)
    assert frontier_gap(three, three).tolist() == [0.0] * 5


@pytest.mark.parametrize("dim", [2, 36])
def test_proximity_counts_distance_per_dimension(dim: int) -> None:
    taken = torch.zeros((1, dim), dtype=torch.double)
    points = torch.tensor([[0.0] * dim, [0.25] * dim], dtype=torch.double)
    near = proximity(points, taken).tolist()
    assert near == pytest.approx([1.0, math.exp(-4 * 0.25 * math.sqrt(2))])
    assert proximity(points, taken[:0]).tolist() == [0.0, 0.0]


def test_every_term_can_be_switched_off() -> None:
    gains = torch.tensor([0.0, -0.01, -9.0], dtype=torch.double)
    means = torch.tensor([[0.1, 0.9], [0.6, 0.4], [0.6, 0.4]], dtype=torch.double)
    points = torch.tensor([[0.5, 0.5], [0.1, 0.1], [0.9, 0.9]], dtype=torch.double)
    taken = torch.tensor([[0.1, 0.1]], dtype=torch.double)

    def best(gap: float, penalty: float) -> int:
        rerank = Rerank(gap, penalty)
        return int(rerank.scores(gains, means, points, VALUES, taken).argmax())

    assert best(0.0, 0.0) == 0  # the acquisition alone
    assert best(0.25, 0.0) == 1  # nearly as good, and in the wide gap
    assert best(0.25, 0.5) == 0  # but it is being measured
    # A gap does not make up for an acquisition of nearly nothing.
    assert best(0.9, 0.0) == 1
