"""The formula, chunk by chunk."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergefront.objectives.merging import OPERATORS
from mergefront.objectives.merging.merger import CHUNK, Merger, ParentTensors, Resident, checksum

LINEAR = OPERATORS["linear"]


def _merge(base: torch.Tensor, experts: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    out = torch.empty_like(base)
    inputs = ParentTensors("t", Resident(base), [Resident(expert) for expert in experts])
    Merger(LINEAR, LINEAR.options({})).merge(inputs, weights, out)
    return out


@given(weight=st.floats(-1, 2), seed=st.integers(0, 2**16))
@settings(deadline=None, max_examples=30)
def test_linear_is_the_weighted_mean_of_the_parents(weight: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(7, 5, generator=generator)
    expert = torch.randn(7, 5, generator=generator)
    expected = (1 - weight) * base.double() + weight * expert.double()
    torch.testing.assert_close(
        _merge(base, [expert], [weight]).double(), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_ends_are_the_parents_bit_for_bit(dtype: torch.dtype) -> None:
    base = torch.randn(CHUNK + 3).to(dtype)
    expert = torch.randn(CHUNK + 3).to(dtype) * 1e3
    base[:4] = torch.tensor([0.0, -0.0, 1.0, -1.0])
    expert[:4] = torch.tensor([-0.0, 0.0, -0.0, 1e-7])
    bits = torch.int32 if dtype == torch.float32 else torch.int16
    assert torch.equal(_merge(base, [expert], [0.0]).view(bits), base.view(bits))
    assert torch.equal(_merge(base, [expert], [1.0]).view(bits), expert.view(bits))


def test_chunks_join_without_a_seam() -> None:
    base, expert = torch.zeros(3, CHUNK), torch.arange(3 * CHUNK).reshape(3, CHUNK).float()
    assert torch.equal(_merge(base, [expert], [0.5]), expert / 2)


def test_arithmetic_is_float32_and_rounds_once() -> None:
    base = torch.tensor([1.0]).bfloat16()
    expert = torch.tensor([1.0078125]).bfloat16()  # the next bfloat16
    # In float32 0.75 of one step rounds up; a delta rounded to bfloat16 first would not matter
    # here, but 0.25 of a step must round down to the base.
    assert _merge(base, [expert], [0.75]).item() == expert.item()
    assert _merge(base, [expert], [0.25]).item() == base.item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("weight", [0.1, 1 / 3, 0.5, 0.7, 0.999, 1.3])
def test_the_shortcut_for_one_expert_gives_the_bits_of_float32_arithmetic(
    dtype: torch.dtype, weight: float
) -> None:
    base = torch.randn(CHUNK + 7).to(dtype)
    expert = (base.float() + 0.1 * torch.randn(CHUNK + 7)).to(dtype)
    expected = torch.lerp(base.float(), expert.float(), weight).to(dtype)
    assert torch.equal(_merge(base, [expert], [weight]), expected)


def test_several_experts_add_their_task_vectors() -> None:
    base = torch.tensor([1.0, 2.0])
    experts = [torch.tensor([2.0, 2.0]), torch.tensor([1.0, 6.0])]
    # base + 0.5 * (1, 0) + 0.25 * (0, 4)
    assert torch.equal(_merge(base, experts, [0.5, 0.25]), torch.tensor([1.5, 3.0]))
    assert torch.equal(_merge(base, experts, [0.0, 1.0]), experts[1])


def test_checksum_depends_on_names_shapes_and_bytes() -> None:
    tensor = torch.arange(4.0)
    reference = checksum([("a", tensor)])
    assert checksum([("a", tensor.clone())]) == reference
    assert checksum([("b", tensor)]) != reference
    assert checksum([("a", tensor.reshape(2, 2))]) != reference
    assert checksum([("a", tensor.bfloat16())]) != reference
    assert checksum([("a", -tensor)]) != reference
