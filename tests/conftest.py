"""Settings for the whole suite."""

import pytest

pytest.register_assert_rewrite("optuna.testing.pytest_samplers")
