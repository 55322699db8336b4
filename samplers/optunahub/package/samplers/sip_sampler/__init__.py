"""SIPSampler for OptunaHub: the class lives in `mergefront.samplers`."""

from mergefront.samplers import SIPSampler

__all__ = ["SIPSampler"]
