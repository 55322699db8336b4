"""The Gaussian process surrogate."""

from .lengthscale_prior import Trust
from .surrogate import Observations, Surrogate, fit_surrogate

__all__ = ["Observations", "Surrogate", "Trust", "fit_surrogate"]
