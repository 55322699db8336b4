"""The surrogate and its priors."""

import math

import pytest
import torch
from gpytorch.priors import LogNormalPrior

from mergefront.samplers._gp import Observations, fit_surrogate
from mergefront.samplers._gp.lengthscale_prior import SHIFT, make_kernel, standardize


def _prior(importance: torch.Tensor | None, trust: float) -> torch.Tensor:
    kernel = make_kernel(4, importance, trust)
    prior = kernel.lengthscale_prior
    assert isinstance(prior, LogNormalPrior)
    location: torch.Tensor = prior.loc
    return location * torch.ones(4)


IMPORTANCE = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.double)


def test_without_importance_the_prior_is_botorchs_dimension_scaled_one() -> None:
    expected = math.sqrt(2) + math.log(4) / 2
    assert _prior(None, 0.0).tolist() == pytest.approx([expected] * 4)
    assert _prior(IMPORTANCE, 0.0).tolist() == pytest.approx([expected] * 4)


def test_important_columns_expect_shorter_lengthscales() -> None:
    # Standardized: (-0.5, -0.5, -0.5, 1.5), with the sample deviation 0.5.
    centre = math.sqrt(2) + math.log(4) / 2
    expected = [centre + 0.5 * SHIFT] * 3 + [centre - 1.5 * SHIFT]
    assert _prior(IMPORTANCE, 1.0).tolist() == pytest.approx(expected)
    assert _prior(IMPORTANCE, 0.5).tolist() == pytest.approx([(a + centre) / 2 for a in expected])


def test_constant_importance_is_no_knowledge() -> None:
    assert standardize(torch.full((5,), 0.3)).tolist() == [0.0] * 5
    assert standardize(torch.tensor([0.7])).tolist() == [0.0]


def _observations(noise: float, known: bool = True, n: int = 40) -> Observations:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(n, 4, generator=generator, dtype=torch.double)
    truth = torch.stack([torch.sin(3 * X[:, 3]), X[:, 0] ** 2], dim=1)
    Y = truth + noise * torch.randn(n, 2, generator=generator, dtype=torch.double)
    errors = torch.full_like(Y, noise) if known else None
    return Observations(X, Y, errors, IMPORTANCE)


def test_posterior_means_are_closer_to_the_truth_than_measurements() -> None:
    noisy, clean = _observations(0.2), _observations(0.0)
    means, deviations = fit_surrogate(noisy).posterior(noisy.X)
    measured_error = (noisy.Y - clean.Y).square().mean()
    denoised_error = (means - clean.Y).square().mean()
    assert denoised_error < 0.3 * measured_error
    assert bool((deviations < 0.2).all())


def test_without_errors_the_noise_is_inferred() -> None:
    observations = _observations(0.2, known=False, n=80)
    means, _ = fit_surrogate(observations).posterior(observations.X)
    truth = _observations(0.0, n=80).Y
    assert (means - truth).square().mean() < 0.5 * (observations.Y - truth).square().mean()


def test_relevance_finds_the_columns_that_matter() -> None:
    relevance = fit_surrogate(_observations(0.02)).relevance()
    assert relevance.argmax(dim=1).tolist() == [3, 0]


def test_trust_is_learned_for_each_objective() -> None:
    # Column 3 matters for the first objective, as the prior says; column 0 for the second.
    trust = fit_surrogate(_observations(0.05, n=16)).trust
    assert trust == (1.0, 0.0)
    assert fit_surrogate(_observations(0.05), trust=0.5).trust == (0.5, 0.5)


def test_one_trial_and_equal_trials_can_be_fitted() -> None:
    X = torch.full((3, 4), 0.5, dtype=torch.double)
    Y = torch.zeros(3, 2, dtype=torch.double)
    for n in (1, 3):
        means, deviations = fit_surrogate(Observations(X[:n], Y[:n])).posterior(X[:n])
        assert bool(torch.isfinite(means).all() and torch.isfinite(deviations).all())
