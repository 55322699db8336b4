"""The inferred reference point and the acquisition functions."""

import numpy as np
import pytest
import torch
from botorch.acquisition import AcquisitionFunction
from botorch.acquisition.multi_objective import logei
from botorch.sampling import SobolQMCNormalSampler

from mergefront.samplers import infer_reference_point
from mergefront.samplers._acqf import (
    AcquisitionBudget,
    KnowledgeGradient,
    Scale,
    best_of,
    climb,
    front_span,
    make_acquisition,
    preference_grid,
    raw_points,
    worth_knowing,
)
from mergefront.samplers._gp import Observations, Surrogate, fit_surrogate


def test_reference_point_is_a_tenth_of_the_front_beyond_its_worst() -> None:
    Y = torch.tensor([[0.0, 10.0], [1.0, 0.0], [-100.0, -100.0]])  # the last is dominated
    assert infer_reference_point(Y).tolist() == pytest.approx([-0.1, -1.0])


def test_reference_point_of_one_point_lies_below_it() -> None:
    assert infer_reference_point(torch.tensor([[2.0, 0.0]])).tolist() == pytest.approx([1.8, -0.1])


def test_reference_point_looks_behind_a_front_of_one_point() -> None:
    Y = torch.tensor([[0.0, 0.0], [-1.0, -3.0], [-2.0, -2.0], [-4.0, -4.0], [-100.0, -100.0]])
    assert infer_reference_point(Y).tolist() == pytest.approx([-4.4, -4.4])
    assert infer_reference_point(Y[1:]).tolist() == pytest.approx([-2.1, -3.1])


def test_span_reaches_from_the_reference_point_to_the_fronts_best() -> None:
    Y = torch.tensor([[0.0, 10.0], [1.0, 0.0], [-100.0, -100.0]])
    assert front_span(Y, torch.tensor([-1.0, -2.0])).tolist() == [2.0, 12.0]
    # A reference point that nothing beats: the range of all values.
    assert front_span(Y, torch.tensor([5.0, -2.0])).tolist() == [101.0, 12.0]


def test_no_kernel_is_compiled() -> None:
    assert logei._load_attempted
    assert logei._C is None


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
def test_preferences_are_positive_and_sum_to_one(n_objectives: int) -> None:
    preferences = preference_grid(n_objectives)
    assert preferences.shape[1] == n_objectives
    assert bool((preferences > 0).all())
    assert preferences.sum(dim=1).tolist() == pytest.approx([1.0] * len(preferences))


def _surrogate(n_objectives: int) -> tuple[Surrogate, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(8, 3, generator=generator, dtype=torch.double)
    Y = torch.stack([X[:, i % 3] * (-1) ** i for i in range(n_objectives)], dim=1)
    return fit_surrogate(Observations(X, Y, torch.full_like(Y, 0.05))), X


def _knowledge_gradient(surrogate: Surrogate, X: torch.Tensor) -> KnowledgeGradient:
    means, _ = surrogate.posterior(X)
    reference = infer_reference_point(means)
    scale = Scale(reference, front_span(means, reference), preference_grid(means.shape[1]))
    return KnowledgeGradient(surrogate, X, scale, n_samples=64, seed=0)


def _nehvi(surrogate: Surrogate, X: torch.Tensor) -> AcquisitionFunction:
    sampler = SobolQMCNormalSampler(torch.Size([16]), seed=0)
    reference = infer_reference_point(surrogate.posterior(X)[0])
    return make_acquisition(surrogate, X, X[:2] + 0.01, reference, sampler)


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
@pytest.mark.parametrize("make", [_knowledge_gradient, _nehvi])
def test_acquisition_is_finite_and_its_maximum_inside_the_cube(
    make: "type[AcquisitionFunction]", n_objectives: int
) -> None:
    surrogate, X = _surrogate(n_objectives)
    acquisition = make(surrogate, X)  # type: ignore[call-arg, arg-type]
    rng = np.random.default_rng(0)
    raw = raw_points(X, surrogate.posterior(X)[0], 32, rng)
    budget = AcquisitionBudget(n_restarts=2, n_steps=10)
    point = best_of(acquisition, *climb(acquisition, raw, budget, rng), lambda points: points)
    assert point.shape == (3,)
    assert bool(((point >= 0) & (point <= 1)).all())
    best_raw = acquisition(raw[:, None]).max()
    assert acquisition(point[None, None]) >= best_raw


def test_knowledge_gradient_is_zero_where_nothing_can_be_learned() -> None:
    surrogate, X = _surrogate(2)
    acquisition = _knowledge_gradient(surrogate, X)
    grid = torch.rand(200, 1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    # The utility is concave, so a gain may fall a little below zero.
    assert bool((acquisition(grid) > -0.02 * acquisition(grid).max()).all())
    # After a hundred measurements of one point, another one of it is worth next to nothing.
    known = surrogate.with_pending(X[:1].expand(100, -1))
    again = _knowledge_gradient(known, X)(X[:1, None])
    assert float(again) < 0.02 * float(acquisition(grid).max())


def test_knowledge_gradient_measures_promising_points_again() -> None:
    """A noisy favourite is worth another look; a hopeless point with the same error is not."""
    X = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.double)
    Y = torch.tensor([[0.0], [0.9], [1.0]], dtype=torch.double)
    surrogate = fit_surrogate(Observations(X, Y, torch.full_like(Y, 0.1)))
    hopeless, _, favourite = _knowledge_gradient(surrogate, X)(X[:, None]).tolist()
    assert favourite > 3 * max(hopeless, 0.0)


def test_raw_points_lie_in_the_cube_and_contain_the_evaluated_ones() -> None:
    surrogate, X = _surrogate(2)
    raw = raw_points(X, surrogate.posterior(X)[0], 64, np.random.default_rng(0))
    assert bool(((raw >= 0) & (raw <= 1)).all())
    assert torch.equal(raw[:8], X)
    diagonal = (raw == raw[:, :1]).all(dim=1)
    assert int(diagonal.sum()) == 8


def test_all_points_are_worth_knowing_while_they_are_few() -> None:
    means = torch.rand((10, 2), generator=torch.Generator().manual_seed(0), dtype=torch.double)
    scale = Scale(torch.zeros(2), torch.ones(2), preference_grid(2))
    assert worth_knowing(means, scale, 10).tolist() == list(range(10))


def test_of_many_points_the_nearest_to_the_front_and_some_of_the_rest_are_kept() -> None:
    angle = torch.linspace(0, 1.57, 40, dtype=torch.double)
    front = torch.stack([angle.cos(), angle.sin()], dim=1)
    means = torch.cat([0.3 * front, front, 0.6 * front])
    scale = Scale(torch.zeros(2) - 0.1, torch.ones(2), preference_grid(2))
    rows = worth_knowing(means, scale, 60)
    assert len(rows.unique()) == 60
    assert rows.tolist() == sorted(rows.tolist())
    assert set(range(40, 80)) <= set(rows.tolist())
    assert any(row < 40 for row in rows.tolist())
    assert any(row >= 80 for row in rows.tolist())


@pytest.mark.parametrize("m", [1, 2, 3])
def test_utilities_are_the_smallest_scaled_gains(m: int) -> None:
    generator = torch.Generator().manual_seed(m)
    values = torch.rand((4, 3, 5, m), generator=generator, dtype=torch.double)
    reference = torch.full((m,), 0.1, dtype=torch.double)
    scale = Scale(reference, torch.arange(1.0, m + 1, dtype=torch.double), preference_grid(m))
    gains = ((values - scale.reference) / scale.span)[..., None, :] / scale.preferences
    assert torch.equal(scale.utilities(values), gains.amin(dim=-1))


def test_points_are_scored_alike_alone_and_together() -> None:
    surrogate, X = _surrogate(2)
    acquisition = _knowledge_gradient(surrogate, X)
    points = torch.rand((11, 1, 3), dtype=torch.double)
    alone = torch.cat([acquisition(point[None]) for point in points])
    assert torch.allclose(acquisition(points), alone, rtol=1e-9, atol=1e-12)
