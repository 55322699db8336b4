"""SIPSampler passes Optuna's own sampler contract."""

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    MultiObjectiveSamplerTestCase,
    RelativeSamplerTestCase,
)

from mergefront.samplers import SIPSampler
from mergefront.samplers._acqf import AcquisitionBudget

SMALL = AcquisitionBudget(n_samples=8, n_raw=8, n_restarts=1, n_steps=2)


class TestSIPSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        # No start-up trials, so that every case goes through the surrogate.
        return lambda: SIPSampler(n_startup_trials=0, seed=0, budget=SMALL)
