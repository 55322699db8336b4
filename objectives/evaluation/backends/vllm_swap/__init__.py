"""Weights that change inside a running vLLM engine, and how we know that they did.

`Engine` is vLLM with our methods in its workers (`vllm_worker`). `SelfTest` starts fresh engines,
and demands of a swapped one what they hold and answer (`canary`, `device_hash`). `layers` knows
how kernels hold weights, `parents` keeps copies of the parents in that form.
"""

from .canary import Repeatability
from .engine import Engine
from .self_test import SelfTest

__all__ = ["Engine", "Repeatability", "SelfTest"]
