"""Operators against mergekit's frozen results, and the laws that all of them keep."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mergefront.errors import LayoutError, SpecError
from mergefront.objectives.merging import OPERATORS
from mergefront.objectives.merging.merger import (
    CHUNK,
    Merger,
    ParentTensors,
    Resident,
    check_finite,
)
from mergefront.objectives.merging.operators import Operator, check_operator

GOLDEN = Path(__file__).parents[2] / "golden"
sys.path.insert(0, str(GOLDEN))

from freeze import CASES, inputs  # noqa: E402 - beside the frozen arrays

FROZEN = load_file(GOLDEN / "mergekit.safetensors")

# How a mergekit case is written in our parametrisation: experts, weights, density, parameters.
OURS: dict[str, tuple[list[str], list[float], float, dict[str, float]]] = {
    "linear": (["one", "two"], [0.5, 0.3], 1.0, {}),  # base has the rest of 1
    "task_arithmetic": (["one", "two"], [0.4, 0.7], 1.0, {}),
    "task_arithmetic_normalized": (
        ["one", "two"],
        [0.4, 0.7],
        1.0,
        {"normalize": 1, "lambda": 1.3},
    ),
    "ties": (["one", "two"], [0.4, 0.7], 0.5, {"normalize": 1}),
    "ties_plain": (["one", "two"], [0.4, 0.7], 0.3, {"lambda": 0.8}),
    "ties_negative": (["one", "two"], [-0.4, 0.7], 0.6, {"normalize": 1}),
    "ties_dense": (["one", "two"], [0.4, 0.7], 1.0, {"normalize": 1}),
    "dare_linear": (["one", "two"], [0.4, 0.7], 0.6, {}),
    "dare_linear_unscaled": (["one", "two"], [0.4, 0.7], 0.6, {"rescale": 0}),
    "dare_ties": (["one", "two"], [0.4, 0.7], 0.6, {}),
    "della_linear": (["one", "two"], [0.4, 0.7], 0.5, {"epsilon": 0.2}),
    "della": (["one", "two"], [0.4, 0.7], 0.5, {"normalize": 1}),
    "breadcrumbs": (["one", "two"], [0.4, 0.7], 0.6, {"gamma": 0.05}),
    "breadcrumbs_ties": (["one", "two"], [0.4, 0.7], 0.6, {"gamma": 0.0}),
    "slerp": (["far"], [0.3], 1.0, {}),
    "slerp_parallel": (["near"], [0.3], 1.0, {}),
    "nuslerp": (["one", "two"], [0.4, 0.7], 1.0, {}),
    "nuslerp_pair": (["one"], [0.3], 1.0, {}),
    "multislerp": (["one", "two"], [0.4, 0.7], 1.0, {}),
    "multislerp_pair": (["one"], [0.3], 1.0, {}),
    "karcher": (["one", "two"], [1 / 3, 1 / 3], 1.0, {}),
    "model_stock": (["one", "two"], [1.0, 1.0], 1.0, {}),
    "sce": (["one", "two"], [1.0, 1.0], 1.0, {"select_topk": 0.4}),
    "sce_all": (["one", "two"], [1.0, 1.0], 1.0, {}),
    "nearswap": (["near"], [0.002], 1.0, {}),
    "passthrough": (["one"], [1.0], 1.0, {"scale": 0.5}),
}


class _OneStream(Merger):
    """Draws all masks from one generator, as mergekit does; ours has one per tensor and expert."""

    def _sparsify(self, inputs: ParentTensors, k: int, density: float) -> Any:
        original = torch.Generator.manual_seed
        if k == 0:
            self._generator = torch.Generator()
            original(self._generator, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "Generator", lambda: _Fixed(self._generator))
            return super()._sparsify(inputs, k, density)


class _Fixed:
    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def manual_seed(self, seed: int) -> torch.Generator:
        return self._generator


def _merge(
    operator: Operator,
    tensors: list[torch.Tensor],
    weights: list[float],
    density: float = 1.0,
    parameters: dict[str, float] | None = None,
    kind: type[Merger] = Merger,
) -> torch.Tensor:
    merger = kind(operator, operator.options(parameters or {}))
    out = torch.full_like(tensors[0], float("nan"))
    sources = [Resident(tensor) for tensor in tensors]
    merger.merge(ParentTensors("t", sources[0], sources[1:]), weights, out, density)
    return out


@pytest.mark.parametrize("case", sorted(CASES))
def test_equals_mergekit(case: str) -> None:
    tensors = inputs()
    assert all(torch.equal(tensors[name], FROZEN[name]) for name in tensors)
    experts, weights, density, parameters = OURS[case]
    listed = [tensors[name] for name in ("base", *experts)]
    operator = OPERATORS[CASES[case][0]]
    ours = _merge(operator, listed, weights, density, parameters, _OneStream)
    torch.testing.assert_close(ours, FROZEN[case], atol=2e-6, rtol=1e-6)


def test_every_operator_has_a_frozen_case() -> None:
    assert {CASES[case][0] for case in CASES} == OPERATORS.keys()
    assert OURS.keys() == CASES.keys()


def _tensors(seed: int, n: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(6, 8, generator=generator)
    return [base, *(base + 0.3 * torch.randn(6, 8, generator=generator) for _ in range(n))]


def _n_experts(operator: Operator) -> int:
    return max(operator.min_experts, 1)


NAMES = sorted(OPERATORS)


def _density(operator: Operator) -> float:
    return 0.5 if operator.sparsify is not None else 1.0


@pytest.mark.parametrize("name", NAMES)
def test_output_changes_with_the_weight(name: str) -> None:
    operator = OPERATORS[name]
    n = _n_experts(operator)
    tensors = _tensors(0, n)
    pairs = {"nearswap": (0.01, 0.1), "passthrough": (0.2, 0.7)}
    low, high = pairs.get(name, (0.3, 0.6))
    few = _merge(operator, tensors, [low] * n, _density(operator))
    more = _merge(operator, tensors, [high] * n, _density(operator))
    assert (few - more).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=8)
def test_weight_zero_is_the_base_bit_for_bit(name: str, seed: int) -> None:
    operator = OPERATORS[name]
    n = _n_experts(operator)
    tensors = _tensors(seed, n)
    tensors[0][0, :2] = torch.tensor([0.0, -0.0])
    merged = _merge(operator, tensors, [0.0] * n, _density(operator))
    assert torch.equal(merged.view(torch.int32), tensors[0].view(torch.int32))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("nearswap", "model_stock")])
@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=8)
def test_one_whole_expert_is_that_expert_at_density_1(name: str, seed: int) -> None:
    operator = OPERATORS[name]
    tensors = _tensors(seed, 1)
    merged = _merge(operator, tensors, [1.0])
    if operator.exact_ends or operator.on_deltas:
        assert torch.equal(merged, tensors[1])
    torch.testing.assert_close(merged, tensors[1], atol=2e-6, rtol=1e-5)


SYMMETRIC = [n for n in NAMES if OPERATORS[n].max_experts is None]


@pytest.mark.parametrize("name", SYMMETRIC)
@given(seed=st.integers(0, 10_000), a=st.floats(0.1, 1), b=st.floats(0.1, 1))
@settings(deadline=None, max_examples=8)
def test_the_order_of_experts_does_not_matter(name: str, seed: int, a: float, b: float) -> None:
    operator = OPERATORS[name]
    base, one, two = _tensors(seed, 2)
    forward = _merge(operator, [base, one, two], [a, b])
    backward = _merge(operator, [base, two, one], [b, a])
    torch.testing.assert_close(forward, backward, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 10_000), weight=st.floats(0.05, 1))
@settings(deadline=None, max_examples=8)
def test_equal_models_merge_into_themselves(name: str, seed: int, weight: float) -> None:
    operator = OPERATORS[name]
    n = _n_experts(operator)
    (base,) = _tensors(seed, 0)
    merged = _merge(operator, [base] * (n + 1), [weight] * n, _density(operator))
    torch.testing.assert_close(merged, base, atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("name", [n for n in NAMES if OPERATORS[n].sparsify is not None])
def test_masks_keep_the_density_and_ignore_the_weights(name: str) -> None:
    operator = OPERATORS[name]
    generator = torch.Generator().manual_seed(0)
    base = torch.zeros(64, 256)
    expert = torch.randn(64, 256, generator=generator)
    merged = [_merge(operator, [base, expert], [w], 0.6, {"rescale": 0}) for w in (0.5, 1.0)]
    assert torch.equal(merged[0] != 0, merged[1] != 0)
    assert float((merged[1] != 0).float().mean()) == pytest.approx(0.6, abs=0.02)
    kept = merged[1] != 0
    assert torch.equal(merged[1][kept], expert[kept])


def test_masks_depend_on_seed_name_and_expert_alone() -> None:
    operator = OPERATORS["dare_linear"]
    tensors = [torch.zeros(40, 40), torch.ones(40, 40), torch.ones(40, 40)]

    def mask(seed: int, name: str, weights: list[float]) -> torch.Tensor:
        merger = Merger(operator, operator.options({}), seed)
        sources = [Resident(tensor) for tensor in tensors]
        out = torch.empty(40, 40)
        merger.merge(ParentTensors(name, sources[0], sources[1:]), weights, out, 0.5)
        return out != 0

    reference = mask(0, "a", [0.5, 0.0])
    assert torch.equal(mask(0, "a", [0.5, 0.0]), reference)
    assert not torch.equal(mask(1, "a", [0.5, 0.0]), reference)
    assert not torch.equal(mask(0, "b", [0.5, 0.0]), reference)
    assert not torch.equal(mask(0, "a", [0.0, 0.5]), reference)


def test_remembered_masks_give_the_same_result() -> None:
    operator = OPERATORS["della"]
    tensors = [Resident(tensor) for tensor in _tensors(0, 2)]
    remembering = Merger(operator, operator.options({}), remember=True)
    for weights in ([0.3, 0.9], [0.8, 0.1], [0.3, 0.9]):
        fresh = Merger(operator, operator.options({}))
        outs = [torch.empty(6, 8), torch.empty(6, 8)]
        for merger, out in zip((remembering, fresh), outs, strict=True):
            merger.merge(ParentTensors("t", tensors[0], tensors[1:]), weights, out, 0.5)
        assert torch.equal(*outs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), -float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(value: float, dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    tensor = torch.tensor([*[0.0] * CHUNK, -0.0, largest, 0.0, -largest], dtype=dtype)
    for finite in (tensor, tensor[:0], torch.tensor([2**31 - 1, -1])):
        check_finite("w", finite)
    tensor[-2] = value
    with pytest.raises(LayoutError, match=r"'w' has 1 NaN or infinite"):
        check_finite("w", tensor)


@pytest.mark.parametrize(
    ("name", "n", "parameters", "densities", "message"),
    [
        ("slerp", 2, {}, [1.0], "at most 1"),
        ("model_stock", 1, {}, [1.0], "2 or more"),
        ("linear", 1, {"lambda": 1.0}, [1.0], "but got 'lambda'"),
        ("ties", 1, {"lambda": 99.0}, [1.0], r"`-10 <= lambda <= 10` .* got lambda=99"),
        ("linear", 1, {}, [0.5], "remove density=0.5"),
        ("ties", 1, {"normalize": 1}, [0.5], "the weight cancels"),
        ("della", 2, {"epsilon": 0.2}, [0.1], "density=0.1 and epsilon=0.2"),
    ],
)
def test_what_an_operator_is_not_defined_for_is_refused(
    name: str, n: int, parameters: dict[str, float], densities: list[float], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        check_operator(OPERATORS[name], n, parameters, densities)
