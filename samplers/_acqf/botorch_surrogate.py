"""The surrogate in BoTorch's terms."""

from typing import Any

import torch
from botorch.models.model import Model
from botorch.posteriors import GPyTorchPosterior
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from torch import Tensor

from .._gp import Surrogate

_JITTER = 1e-6  # relative to the objectives' variance


class BoTorchSurrogate(Model):
    """The surrogate as BoTorch's acquisition functions want it: joint posteriors of `q` points.

    Args:
        surrogate: Fitted.
    """

    def __init__(self, surrogate: Surrogate) -> None:
        super().__init__()
        self._surrogate = surrogate

    @property
    def num_outputs(self) -> int:
        """Number of objectives."""
        return len(self._surrogate.fits)

    @property
    def batch_shape(self) -> torch.Size:
        """One surrogate, not a batch."""
        return torch.Size([])

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> GPyTorchPosterior:  # noqa: D417
        """Return the joint posterior of the noise-free values.

        Args:
            X: A `... x q x d`-dim tensor.
        """
        joints = [self._joint(X, j) for j in range(self.num_outputs)]
        if len(joints) == 1:
            return GPyTorchPosterior(joints[0])
        return GPyTorchPosterior(MultitaskMultivariateNormal.from_independent_mvns(joints))

    def _joint(self, X: Tensor, j: int) -> MultivariateNormal:
        process = self._surrogate.fits[j].process
        mean, covariance = process.joint(X)
        jitter = _JITTER * process.spread**2 * torch.eye(X.shape[-2], dtype=X.dtype)
        return MultivariateNormal(mean, covariance + jitter)
