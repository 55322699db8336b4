"""Optuna samplers for layer-wise merging."""

from ._acqf import AcquisitionBudget, infer_reference_point
from ._search_space import MEASURED, is_measured, signs, uniform_levels
from .denoise import Denoised, denoise
from .per_trial import PerTrialSampler
from .sip_sampler import SIPSampler

__all__ = [
    "MEASURED",
    "AcquisitionBudget",
    "Denoised",
    "PerTrialSampler",
    "SIPSampler",
    "denoise",
    "infer_reference_point",
    "is_measured",
    "signs",
    "uniform_levels",
]
