"""Exact selection for any data."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergefront.objectives.merging.operators._top_k import largest


@given(values=st.lists(st.integers(0, 5), min_size=1, max_size=60), share=st.floats(0, 1))
@settings(deadline=None)
def test_keeps_exactly_k_of_the_largest_and_the_first_among_equals(
    values: list[int], share: float
) -> None:
    k = int(share * len(values))
    mask = largest(torch.tensor(values, dtype=torch.float32), k)
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert set(mask.nonzero().flatten().tolist()) == set(order[:k])


def _sorted(n: int) -> torch.Tensor:
    return torch.arange(n, dtype=torch.float32)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["normal", "sorted", "few values", "periodic", "constant"])
def test_large_data_of_every_shape(kind: str, share: float) -> None:
    n = 700_001
    generator = torch.Generator().manual_seed(0)
    values = {
        "normal": torch.randn(n, generator=generator).abs(),
        "sorted": _sorted(n),
        "few values": torch.randn(n, generator=generator).abs().bfloat16().float(),
        # The sample's stride meets one phase only: the bracket misses and must be widened.
        "periodic": (_sorted(n) % 42 == 0).float() + _sorted(n) / n,
        "constant": torch.ones(n),
    }[kind]
    k = int(share * n)
    mask = largest(values, k)
    assert int(mask.sum()) == k
    assert float(values[mask].min()) >= float(values[~mask].max())
