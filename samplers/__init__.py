"""Optuna samplers for layer-wise merging."""

from ._acqf import AcquisitionBudget, infer_reference_point
from ._acqf.rerank import Rerank
from ._gp import Trust
from ._transfer import Source, has_sources, keep, kept
from ._trials.knowledge import check_point
from ._trials.measurements import MEASURED, is_measured
from ._trials.pending import FIXED, GAIN, given_params
from ._trials.search_space import fits, signs, uniform_levels
from .adviser import CAUTION, Adviser, Recommendation, fresh_deviations
from .arm_sampler import ArmSampler
from .bmm_sampler import BMMSampler, BMMSettings
from .denoise import Denoised, denoise, fit_study, keeps_to_constraints, read_off
from .moead_cmaes import MoeadCmaesSampler
from .per_trial import PerTrialSampler
from .recommend import Preference, preference_weights, recommend
from .simmerge import SimMergeSampler
from .sip_sampler import SIPSampler

__all__ = [
    "CAUTION",
    "FIXED",
    "GAIN",
    "MEASURED",
    "AcquisitionBudget",
    "Adviser",
    "ArmSampler",
    "BMMSampler",
    "BMMSettings",
    "Denoised",
    "MoeadCmaesSampler",
    "PerTrialSampler",
    "Preference",
    "Recommendation",
    "Rerank",
    "SIPSampler",
    "SimMergeSampler",
    "Source",
    "Trust",
    "check_point",
    "denoise",
    "fit_study",
    "fits",
    "fresh_deviations",
    "given_params",
    "has_sources",
    "infer_reference_point",
    "is_measured",
    "keep",
    "keeps_to_constraints",
    "kept",
    "preference_weights",
    "read_off",
    "recommend",
    "signs",
    "uniform_levels",
]
