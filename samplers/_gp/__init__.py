"""The Gaussian process surrogate."""

from .fit import spread_rows
from .hints import Elsewhere
from .priors import Priors, Trust
from .process import MOST_POINTS, Hint, Kernel, Process, pooled_noise
from .surrogate import NOISE_FLOOR, Observations, Surrogate, fit_surrogate

__all__ = [
    "MOST_POINTS",
    "NOISE_FLOOR",
    "Elsewhere",
    "Hint",
    "Kernel",
    "Observations",
    "Priors",
    "Process",
    "Surrogate",
    "Trust",
    "fit_surrogate",
    "pooled_noise",
    "spread_rows",
]
