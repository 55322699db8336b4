"""The inferred reference point and the acquisition functions."""

import pytest
import torch
from botorch.acquisition.multi_objective import logei
from botorch.sampling import SobolQMCNormalSampler

from mergefront.samplers import AcquisitionBudget, infer_reference_point
from mergefront.samplers._acqf import make_acquisition, maximize
from mergefront.samplers._gp import Observations, fit_surrogate


def test_reference_point_is_a_tenth_of_the_front_beyond_its_worst() -> None:
    Y = torch.tensor([[0.0, 10.0], [1.0, 0.0], [-100.0, -100.0]])  # the last is dominated
    assert infer_reference_point(Y).tolist() == pytest.approx([-0.1, -1.0])


def test_reference_point_of_one_point_lies_below_it() -> None:
    assert infer_reference_point(torch.tensor([[2.0, 0.0]])).tolist() == pytest.approx([1.8, -0.1])


def test_no_kernel_is_compiled() -> None:
    assert logei._load_attempted
    assert logei._C is None


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
def test_acquisition_is_finite_and_its_maximum_inside_the_cube(n_objectives: int) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(8, 3, generator=generator, dtype=torch.double)
    Y = torch.stack([X[:, i % 3] * (-1) ** i for i in range(n_objectives)], dim=1)
    surrogate = fit_surrogate(Observations(X, Y, torch.full_like(Y, 0.05)))
    sampler = SobolQMCNormalSampler(torch.Size([16]), seed=0)
    reference = infer_reference_point(Y)
    acquisition = make_acquisition(surrogate, X, X[:2] + 0.01, reference, sampler)
    budget = AcquisitionBudget(n_samples=16, n_raw=16, n_restarts=2, n_steps=10)
    point = maximize(acquisition, 3, budget, seed=0)
    assert point.shape == (3,)
    assert bool(((point >= 0) & (point <= 1)).all())
    assert bool(torch.isfinite(acquisition(point[None, None])).all())
