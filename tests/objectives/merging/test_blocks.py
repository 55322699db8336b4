"""The optimal partition against brute force."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergefront.errors import LayoutError
from mergefront.objectives.merging import MergePlan, MergeSettings, find_blocks


def _cost(values: list[float], starts: tuple[int, ...], balance: float) -> float:
    array = np.array(values)
    span = array.max() - array.min()
    scaled = (array - array.min()) / span if span > 0 else 0 * array
    fair = scaled.sum() / len(starts)
    blocks = np.split(scaled, starts[1:])
    return float(
        sum(((b - b.mean()) ** 2).sum() + balance * (b.sum() - fair) ** 2 for b in blocks)
    )


@given(
    values=st.lists(st.floats(0, 10), min_size=5, max_size=9),
    n_blocks=st.integers(1, 4),
    balance=st.sampled_from([0.0, 0.005, 1.0]),
)
@settings(deadline=None)
def test_no_partition_is_cheaper(values: list[float], n_blocks: int, balance: float) -> None:
    found = find_blocks(values, n_blocks, balance)
    every = combinations(range(1, len(values)), n_blocks - 1)
    best = min(_cost(values, (0, *starts), balance) for starts in every)
    assert len(found) == n_blocks
    assert _cost(values, found, balance) == pytest.approx(best, abs=1e-9)


def test_steps_are_found() -> None:
    assert find_blocks([1, 1, 1, 5, 5, 9, 9, 9], 3) == (0, 3, 5)


def test_as_many_blocks_as_layers_gives_one_each() -> None:
    assert find_blocks([3, 1, 2], 3) == find_blocks([3, 1, 2], 9) == (0, 1, 2)


NAMES = [f"model.layers.{i}.mlp.up_proj.weight" for i in range(12)]


def test_thirds_and_blocks_move_their_layers() -> None:
    thirds = MergePlan(NAMES, MergeSettings(granularity="thirds"))
    assert thirds.groups == ("block_000", "block_001", "block_002")
    assert thirds.tensors_of("block_001") == NAMES[4:8]
    blocks = MergePlan(NAMES, MergeSettings(granularity="blocks", blocks=(0, 1, 10)))
    assert [len(blocks.tensors_of(group)) for group in blocks.groups] == [1, 9, 2]


@pytest.mark.parametrize("blocks", [(), (1, 5), (0, 5, 5), (0, 12)])
def test_blocks_that_do_not_cover_the_layers_are_refused(blocks: tuple[int, ...]) -> None:
    with pytest.raises(LayoutError, match="increasing layers from 0 to 11"):
        MergePlan(NAMES, MergeSettings(granularity="blocks", blocks=blocks))
