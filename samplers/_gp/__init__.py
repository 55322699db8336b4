"""The Gaussian process surrogate."""

from .priors import Priors, Trust
from .surrogate import Observations, Surrogate, fit_surrogate

__all__ = ["Observations", "Priors", "Surrogate", "Trust", "fit_surrogate"]
