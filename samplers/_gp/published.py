"""The surrogates of SIP-BMM and AP-BMM: Matérn-5/2 processes whose lengthscales know the layers.

The papers speak of a sparse prior shaped by importance; the released code of both sets initial
lengthscales by importance and lets the fit forget them. All readings are here, by BoTorch and
GPyTorch, on the unit cube and with the measured noise (the released code normalizes by the data's
own range and adds noise of its own).
"""

import math
import warnings
from typing import Literal

import torch
from botorch.exceptions.warnings import BotorchWarning
from botorch.fit import fit_fully_bayesian_model_nuts, fit_gpytorch_mll
from botorch.models import ModelListGP, SingleTaskGP
from botorch.models.transforms import Standardize
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel, MaternKernel, ScaleKernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.priors import LogNormalPrior
from torch import Tensor

from .surrogate import Observations

# What importance does to lengthscales: nothing, BoTorch's dimension-scaled prior ("default");
# where the fit starts, as in the released code ("initial"); where a log-normal prior is centred
# ("prior"); or a sparse prior integrated by NUTS that needs no importance ("saas").
Lengthscales = Literal["default", "initial", "prior", "saas"]

# AP-BMM: share of the parameters, most important first -> lengthscale.
_BINS = ((0.15, 0.5), (0.40, 1.0), (0.70, 2.0), (1.0, 5.0))
_PLAIN = 1.0  # lengthscale without importance
_PRIOR_WIDTH = 0.8  # log-normal; the widest that still tells a true importance from none
_FIT_STEPS = 100
_WARMUP, _DRAWS, _THINNING = 64, 32, 4  # of NUTS
_SMALLEST_NOISE = 1e-4  # of the values' variance


def rank_lengthscales(importance: Tensor | None, dim: int) -> Tensor:
    """Return AP-BMM's lengthscale of every column by its rank in importance, a `d`-dim tensor.

    The most important 15 % get 0.5, up to 40 % 1, up to 70 % 2, the rest 5. Columns of equal
    importance get the mean of their logarithms, so importance that says nothing does nothing (the
    released code gives them different lengthscales by their place).
    """
    if importance is None or not bool(importance.max() > importance.min()):
        return torch.full((dim,), _PLAIN, dtype=torch.double)
    order = importance.argsort(descending=True, stable=True)
    ranks = torch.empty(dim, dtype=torch.double)
    ranks[order] = torch.linspace(0, 1, dim, dtype=torch.double)
    logs = torch.tensor(
        [math.log(_lengthscale(rank)) for rank in ranks.tolist()], dtype=torch.double
    )
    for value in importance.unique():
        same = importance == value
        logs[same] = logs[same].mean()
    return logs.exp()


def _lengthscale(rank: float) -> float:
    return next(length for share, length in _BINS if rank <= share + 1e-9)


def fit_published(observations: Observations, lengthscales: Lengthscales) -> ModelListGP:
    """Fit one process per objective.

    Args:
        observations: At least two trials; jumps between layers are not used.
        lengthscales: How importance enters.

    Raises:
        ImportError: With "saas", if JAX and NumPyro are not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        columns = range(observations.Y.shape[1])
        return ModelListGP(*(_fit(observations, j, lengthscales) for j in columns))


def _fit(observations: Observations, j: int, lengthscales: Lengthscales) -> SingleTaskGP:
    X, y = observations.X, observations.Y[:, [j]]
    variance = None
    errors = observations.known_errors(j)
    if errors is not None:
        floor = _SMALLEST_NOISE * float(y.var()) or _SMALLEST_NOISE
        variance = errors[:, None].square().clamp_min(floor)
    if lengthscales == "saas":
        return _fit_saas(X, y, variance)
    centres = rank_lengthscales(observations.importance, X.shape[1])
    kernel = _kernel(centres, lengthscales)
    model = SingleTaskGP(X, y, variance, covar_module=kernel, outcome_transform=Standardize(1))
    likelihood = ExactMarginalLogLikelihood(model.likelihood, model)
    fit_gpytorch_mll(likelihood, optimizer_kwargs={"options": {"maxiter": _FIT_STEPS}})
    return model


def _kernel(centres: Tensor, lengthscales: Lengthscales) -> Kernel | None:
    """Return the covariance; None is BoTorch's own."""
    if lengthscales == "default":
        return None
    if lengthscales == "initial":
        kernel = MaternKernel(
            nu=2.5, ard_num_dims=len(centres), lengthscale_constraint=Interval(0.005, 10.0)
        )
        kernel.lengthscale = centres[None]
        return ScaleKernel(kernel)
    # No output scale: with one, few points are explained by a constant.
    width = torch.full_like(centres, _PRIOR_WIDTH)[None]
    prior = LogNormalPrior(centres.log()[None], width)
    kernel = MaternKernel(nu=2.5, ard_num_dims=len(centres), lengthscale_prior=prior)
    kernel.lengthscale = centres[None]
    return kernel


def _fit_saas(X: Tensor, y: Tensor, variance: Tensor | None) -> SingleTaskGP:
    """Fit the sparse axis-aligned subspace prior (Eriksson & Jankowiak 2021) by NUTS."""
    from botorch.models.fully_bayesian import SaasFullyBayesianSingleTaskGP

    model = SaasFullyBayesianSingleTaskGP(X, y, variance, outcome_transform=Standardize(1))
    fit_fully_bayesian_model_nuts(
        model,
        warmup_steps=_WARMUP,
        num_samples=_DRAWS,
        thinning=_THINNING,
        disable_progbar=True,
    )
    return model
