"""Optuna samplers for layer-wise merging."""

from ._search_space import uniform_levels
from .denoise import Denoised, denoise
from .sip_sampler import SIPSampler

__all__ = ["Denoised", "SIPSampler", "denoise", "uniform_levels"]
