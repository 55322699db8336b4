"""SIPSampler and `recommend` for OptunaHub: both live in `mergefront.samplers`."""

from mergefront.samplers import Recommendation, SIPSampler, recommend

__all__ = ["Recommendation", "SIPSampler", "recommend"]
