"""Optuna samplers for layer-wise merging."""

from ._acqf import AcquisitionBudget, infer_reference_point
from ._acqf.rerank import Rerank
from ._search_space import MEASURED, is_measured, signs, uniform_levels
from .bmm_sampler import BMMSampler, BMMSettings
from .denoise import Denoised, denoise
from .moead_cmaes import MoeadCmaesSampler
from .per_trial import PerTrialSampler
from .simmerge import SimMergeSampler
from .sip_sampler import SIPSampler

__all__ = [
    "MEASURED",
    "AcquisitionBudget",
    "BMMSampler",
    "BMMSettings",
    "Denoised",
    "MoeadCmaesSampler",
    "PerTrialSampler",
    "Rerank",
    "SIPSampler",
    "SimMergeSampler",
    "denoise",
    "infer_reference_point",
    "is_measured",
    "signs",
    "uniform_levels",
]
