"""One Gaussian process an objective, with the measured noise of every trial.

Notation: `n` trials, `d` columns of the unit cube, `m` objectives, all maximized.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from botorch.exceptions import BotorchWarning, ModelFittingError
from botorch.fit import fit_gpytorch_mll
from botorch.models import ModelListGP, SingleTaskGP
from botorch.models.transforms import Standardize
from gpytorch.mlls import ExactMarginalLogLikelihood
from linear_operator.utils.warnings import NumericalWarning
from torch import Tensor
from torch.nn import Module

from .lengthscale_prior import Trust, make_kernel

# Candidates for a learned trust: no prior knowledge, and all of it.
_TRUSTS = (0.0, 1.0)
# Smallest noise variance relative to the data's: keeps the covariance well conditioned.
_NOISE_FLOOR = 1e-4


@dataclass(frozen=True)
class Observations:
    """What has been measured.

    Args:
        X: An `n x d`-dim tensor in the unit cube.
        Y: An `n x m`-dim tensor of values to maximize.
        errors: An `n x m`-dim tensor of standard errors, or None to infer one noise level.
        importance: A `d`-dim tensor, larger is more important, or None.
    """

    X: Tensor
    Y: Tensor
    errors: Tensor | None = None
    importance: Tensor | None = None


@dataclass(frozen=True)
class Surrogate:
    """The fitted processes.

    Args:
        model: Posterior over all objectives.
        trust: For every objective, the trust in the importance that was used.
    """

    model: ModelListGP
    trust: tuple[float, ...]

    def posterior(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior mean and standard deviation of the noise-free values.

        Args:
            X: An `n x d`-dim tensor in the unit cube.

        Returns:
            Two `n x m`-dim tensors.
        """
        with torch.no_grad():
            posterior = self.model.posterior(X)
        return posterior.mean, posterior.variance.clamp_min(0.0).sqrt()

    def relevance(self) -> Tensor:
        """Return the inverse lengthscales, an `m x d`-dim tensor: larger is more relevant."""
        rows = [_lengthscale(model) for model in self.model.models]
        return 1.0 / torch.stack(rows)


def _lengthscale(model: Module) -> Tensor:
    assert isinstance(model, SingleTaskGP)
    lengthscale: Tensor = model.covar_module.lengthscale
    return lengthscale.detach().reshape(-1)


def fit_surrogate(observations: Observations, trust: Trust = "learned") -> Surrogate:
    """Fit one process an objective by maximizing the marginal likelihood with the priors.

    Args:
        observations: At least one trial.
        trust: How much of the importance prior to use; "learned" fits with and without it and
            keeps, for each objective, the fit under which data and lengthscales are likelier.
    """
    with quiet_numerics():
        fits = [_fit_column(observations, j, trust) for j in range(observations.Y.shape[1])]
    return Surrogate(ModelListGP(*(model for model, _ in fits)), tuple(t for _, t in fits))


def _fit_column(
    observations: Observations, column: int, trust: Trust
) -> tuple[SingleTaskGP, float]:
    if observations.importance is None:
        candidates: tuple[float, ...] = (0.0,)
    else:
        candidates = _TRUSTS if trust == "learned" else (trust,)
    fits = [(*_fit_one(observations, column, value), value) for value in candidates]
    model, _, chosen = max(fits, key=lambda fit: fit[1])
    return model, chosen


def _fit_one(observations: Observations, column: int, trust: float) -> tuple[SingleTaskGP, float]:
    Y = observations.Y[:, [column]]
    noise = None
    if observations.errors is not None:
        floor = _NOISE_FLOOR * (float(Y.var()) if len(Y) > 1 else 1.0)
        noise = observations.errors[:, [column]].square().clamp_min(max(floor, 1e-12))
    model = SingleTaskGP(
        observations.X,
        Y,
        noise,
        covar_module=make_kernel(observations.X.shape[1], observations.importance, trust),
        outcome_transform=Standardize(m=1),
    )
    mll = ExactMarginalLogLikelihood(model.likelihood, model)
    try:
        fit_gpytorch_mll(mll, optimizer_kwargs={"options": {"maxiter": 200}})
    except ModelFittingError:
        # The prior modes that the fit started from are a usable, if cautious, model.
        mll.eval()
    return model, _log_joint(mll)


def _log_joint(mll: ExactMarginalLogLikelihood) -> float:
    """Return the fit's own objective: log marginal likelihood and log priors, per trial."""
    mll.train()
    with torch.no_grad():
        model = mll.model
        value = mll(model(*model.train_inputs), model.train_targets, *model.train_inputs)
    mll.eval()
    return float(value)


@contextmanager
def quiet_numerics() -> Iterator[None]:
    """Silence what BoTorch says about jitter, restarts and data scales: all handled here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", NumericalWarning)
        yield
