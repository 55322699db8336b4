"""The surrogate, its priors and its kernel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime

from mergefront.samplers._gp import Observations, fit_surrogate, process, spread_rows
from mergefront.samplers._gp.fit import Column, _Objective, fit_column
from mergefront.samplers._gp.priors import SHIFT, Priors, standardize
from mergefront.samplers._gp.process import Kernel, Process, pooled_noise, roughness

IMPORTANCE = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.double)
NO_JUMPS = torch.zeros((2, 0), dtype=torch.long)
CHAIN = torch.tensor([[0, 1, 2], [1, 2, 3]])


def _column(noise: float | None = 0.05, importance: torch.Tensor | None = IMPORTANCE) -> Column:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(20, 4, generator=generator, dtype=torch.double)
    y = torch.sin(3 * X[:, 3]) + 0.1 * torch.randn(20, generator=generator, dtype=torch.double)
    variances = torch.full((20,), noise or 1.0, dtype=torch.double)
    y = (y - y.mean()) / y.std()
    return Column(
        X=X,
        y=y,
        noise=variances,
        location=0.0,
        spread=1.0,
        known_noise=noise is not None,
        importance=importance,
        jumps=CHAIN,
    )


@pytest.mark.parametrize("noise", [None, 0.05])
def test_gradient_of_the_posterior_density(noise: float | None) -> None:
    objective = _Objective(_column(noise), Priors())
    packed = np.random.default_rng(0).normal(size=8) * 0.3
    expected = approx_fprime(packed, lambda v: objective(v)[0], 1e-6)
    assert objective(packed)[1] == pytest.approx(expected, abs=1e-3)


def test_important_columns_expect_shorter_lengthscales() -> None:
    # Standardized: (-0.5, -0.5, -0.5, 1.5), with the sample deviation 0.5.
    objective = _Objective(_column(), Priors())
    packed = torch.zeros(8, dtype=torch.double)
    # No scale, no trust: sqrt(d) for all.
    assert objective.lengthscales(packed).tolist() == pytest.approx([2.0] * 4)
    packed[1] = 1.0
    expected = [2 * np.exp(0.5 * SHIFT)] * 3 + [2 * np.exp(-1.5 * SHIFT)]
    assert objective.lengthscales(packed).tolist() == pytest.approx(expected)


def test_constant_importance_is_no_knowledge() -> None:
    assert standardize(torch.full((5,), 0.3)).tolist() == [0.0] * 5
    assert standardize(torch.tensor([0.7])).tolist() == [0.0]


def test_roughness_is_one_for_independent_weights_and_zero_for_uniform_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(5000, 4, generator=generator, dtype=torch.double)
    assert float(roughness(X, CHAIN).mean()) == pytest.approx(1.0, abs=0.03)
    assert roughness(torch.full((1, 4), 0.3), CHAIN).tolist() == [0.0]
    assert roughness(X[:2], NO_JUMPS).tolist() == [0.0, 0.0]


def _process(noise: float = 0.1) -> Process:
    column = _column(noise)
    kernel = Kernel(torch.ones(4, dtype=torch.double), CHAIN)
    return Process(
        X=column.X,
        y=column.y,
        noise=column.noise,
        location=1.0,
        spread=2.0,
        kernel=kernel,
        mean=0.2,
    )


def test_posterior_is_the_textbooks() -> None:
    process = _process()
    A = torch.rand(3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    K = process.kernel(process.X, process.X) + 0.1 * torch.eye(20, dtype=torch.double)
    cross = process.kernel(A, process.X)
    mean = 0.2 + cross @ torch.linalg.solve(K, process.y - 0.2)
    covariance = process.kernel(A, A) - cross @ torch.linalg.solve(K, cross.T)
    means, joint = process.joint(A)
    assert means.tolist() == pytest.approx((1.0 + 2.0 * mean).tolist(), abs=1e-4)
    assert torch.allclose(joint, 4.0 * covariance, atol=1e-4)
    assert torch.allclose(process.posterior(A)[1].square(), joint.diagonal(), atol=1e-6)


def test_pending_points_leave_the_mean_and_shrink_the_variance() -> None:
    process = _process()
    P = torch.rand(2, 4, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    mean, deviation = process.posterior(P)
    mean_after, deviation_after = process.with_pending(P).posterior(P)
    assert torch.allclose(mean, mean_after, atol=1e-6)
    assert bool((deviation_after < 0.9 * deviation).all())


def test_measurements_that_cannot_be_told_apart_share_their_noise() -> None:
    y = torch.tensor([0.0, 0.1, 5.0], dtype=torch.double)
    noise = torch.tensor([0.04, 0.16, 1.0], dtype=torch.double)
    first, second, far = pooled_noise(y, y, noise).tolist()
    assert first == pytest.approx(0.1, abs=0.02)
    assert second == pytest.approx(0.1, abs=0.02)
    assert far == pytest.approx(1.0, abs=0.02)
    assert pooled_noise(torch.tensor([9.0]), y, noise).tolist() == pytest.approx([1.0], abs=0.01)


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


@pytest.mark.parametrize("n", [30, 80])
def test_without_errors_the_noise_is_inferred(n: int) -> None:
    observations = _observations(0.2, known=False, n=n)
    means, _ = fit_surrogate(observations).posterior(observations.X)
    truth = _observations(0.0, n=n).Y
    assert (means - truth).square().mean() < 0.5 * (observations.Y - truth).square().mean()


def test_relevance_finds_the_columns_that_matter() -> None:
    relevance = fit_surrogate(_observations(0.02)).relevance()
    assert relevance.argmax(dim=1).tolist() == [3, 0]


def test_trust_is_learned_for_each_objective() -> None:
    # Column 3 matters for the first objective, as the prior says; column 0 for the second.
    right, wrong = fit_surrogate(_observations(0.05, n=16)).trust
    assert right > 2 * wrong
    assert fit_surrogate(_observations(0.05), trust=0.5).trust == (0.5, 0.5)


def test_without_importance_there_is_nothing_to_trust() -> None:
    assert fit_column(_column(importance=None), trust=1.0).trust == 0.0


def test_one_trial_and_equal_trials_can_be_fitted() -> None:
    X = torch.full((3, 4), 0.5, dtype=torch.double)
    Y = torch.zeros(3, 2, dtype=torch.double)
    for n in (1, 3):
        means, deviations = fit_surrogate(Observations(X[:n], Y[:n])).posterior(X[:n])
        assert bool(torch.isfinite(means).all() and torch.isfinite(deviations).all())


def test_a_restricted_process_is_the_process_of_the_kept_points() -> None:
    process = _process()
    rows = torch.tensor([0, 3, 7, 12])
    kept = replace(process, X=process.X[rows], y=process.y[rows], noise=process.noise[rows])
    A = torch.rand((5, 4), generator=torch.Generator().manual_seed(3), dtype=torch.double)
    for expected, got in zip(
        kept.posterior(A), process.restricted(rows).posterior(A), strict=True
    ):
        assert torch.equal(expected, got)
    assert torch.equal(process.means(A), process.posterior(A)[0])


def test_a_surrogate_of_some_trials_keeps_the_hyperparameters_of_all() -> None:
    observations = _observations(0.05)
    whole, some = fit_surrogate(observations), fit_surrogate(observations, most=8)
    assert torch.allclose(whole.relevance(), some.relevance(), rtol=1e-6)
    assert len(some.fits[0].process.X) == 8
    assert torch.equal(some.fits[0].process.X, observations.X[spread_rows(len(observations.X), 8)])
    rows = torch.tensor([1, 5, 6])
    assert torch.equal(some.restricted(rows).fits[0].process.X, observations.X[rows])


def test_many_points_are_believed_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    known, A = _process(), torch.rand((11, 4), dtype=torch.double)
    whole, means = known.posterior(A), known.means(A)
    monkeypatch.setattr(process, "MOST_POINTS", 4)
    for expected, got in zip(whole, known.posterior(A), strict=True):
        assert torch.allclose(expected, got, rtol=1e-12)
    assert torch.allclose(known.means(A), means, rtol=1e-12)


def test_rows_are_spread_over_all() -> None:
    assert spread_rows(3, 5).tolist() == [0, 1, 2]
    assert spread_rows(9, 3).tolist() == [0, 4, 8]
