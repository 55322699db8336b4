"""Hashes that find what a swap left behind, on any device."""

import pytest
import torch

from mergefront.objectives.evaluation.backends.vllm_swap.device_hash import hash_tensors, row_sums

TENSORS = {
    "float32": torch.randn(70_000, generator=torch.Generator().manual_seed(0)),
    "bfloat16": torch.arange(-33, 66, dtype=torch.bfloat16).view(9, 11),
    "bool": torch.tensor([True, False, True]),
    "int64": torch.arange(5),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_one_changed_bit_changes_the_numbers_of_its_row(kind: str) -> None:
    tensor = TENSORS[kind]
    before = row_sums(tensor)
    n_bytes = tensor.numel() * tensor.element_size()
    assert len(before) == -(-n_bytes // 2**18)
    for place in (0, n_bytes // 2, n_bytes - 1):
        changed = tensor.clone()
        changed.view(-1).view(torch.uint8)[place] ^= 1
        after = row_sums(changed)
        assert (after != before).nonzero().flatten().tolist() == [place // 2**18]


def test_swapped_elements_and_flipped_signs_are_seen() -> None:
    tensor = TENSORS["float32"]
    assert not torch.equal(row_sums(tensor), row_sums(tensor.flip(0)))
    assert not torch.equal(row_sums(tensor), row_sums(-tensor))


def test_views_count_as_what_they_show() -> None:
    matrix = TENSORS["bfloat16"]
    assert torch.equal(row_sums(matrix.T), row_sums(matrix.T.clone()))
    odd = matrix.view(-1)[1:]  # begins in the middle of a word
    assert torch.equal(row_sums(odd), row_sums(odd.clone()))


def test_names_shapes_and_dtypes_are_told_apart() -> None:
    zeros = torch.zeros(4)
    hashes = hash_tensors(
        [("a", zeros), ("b", zeros.view(2, 2)), ("c", zeros.int()), ("d", torch.zeros(0))]
    )
    assert list(hashes) == ["a", "b", "c", "d"]
    assert len(set(hashes.values())) == 4
    assert hash_tensors([("e", zeros.clone())])["e"] == hashes["a"]
