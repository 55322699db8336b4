"""Models on fresh questions, measured again or for the first time: as predicted or not."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from ...objectives import Measurement, MergeObjective
from ...samplers import Recommendation
from .front import FrontReport
from .recommendations import label_of, spread_out

# A model counts as distinguishable from the uniform curve if this share of resamples agree.
_SURE = 0.975


@dataclass(frozen=True)
class ValidatedModel:
    """One model on the fresh split.

    Args:
        label: Its role or trial.
        trial: Of the search; denoised values in its attributes.
        in_front: Whether the search reported it.
        in_uniform: Whether it is a parent or a uniform merge that keeps to the constraints.
        measurement: On the fresh split.
        beyond_uniform: Share of resamples in which nothing on the uniform curve is as good in all
            objectives; None for what is not in the front.
    """

    label: str
    trial: FrozenTrial
    in_front: bool
    in_uniform: bool
    measurement: Measurement
    beyond_uniform: float | None = None

    @property
    def number(self) -> int:
        """Of its trial."""
        return self.trial.number

    @property
    def distinguishable(self) -> bool:
        """Whether the fresh questions show it to be beyond the uniform curve."""
        return (self.beyond_uniform or 0.0) >= _SURE


@dataclass(frozen=True)
class PredictedModel:
    """A model that nobody had measured, on the fresh questions.

    Args:
        recommendation: With the predicted values.
        measurement: On the fresh questions.
        off: For each objective, the measured value less the predicted one, in standard errors of
            the difference: of the measurement, of the prediction, and of one measurement of the
            search, whose questions were others and the same for all that was predicted from.
    """

    recommendation: Recommendation
    measurement: Measurement
    off: list[float]

    @property
    def label(self) -> str:
        """Such as `recommended 0.50`."""
        return label_of(self.recommendation)

    def to_json(self, report: FrontReport) -> dict[str, Any]:
        """Return what `validate --format json` prints of it."""
        return {
            "label": self.label,
            "preference": self.recommendation.preference,
            "params": self.recommendation.params,
            "predicted": report.named(self.recommendation.values),
            "deviations": report.named(self.recommendation.deviations),
            "values": report.named(self.measurement.values),
            "standard_errors": report.named(self.measurement.standard_errors),
            "off": report.named(self.off),
        }


def measure_recommended(
    report: FrontReport, objective: MergeObjective, progress: Callable[[str], None]
) -> list[PredictedModel]:
    """Measure recommended models that no trial of the search is, a few from end to end."""
    models = []
    for recommendation in spread_out(report.recommended):
        if recommendation.number is None:
            progress(label_of(recommendation))
            measurement = objective.measure(recommendation.params)
            off = _off(recommendation, measurement, _search_errors(report))
            models.append(PredictedModel(recommendation, measurement, off))
    return models


def _off(
    recommendation: Recommendation, measurement: Measurement, search_errors: list[float]
) -> list[float]:
    parts = zip(
        measurement.values,
        recommendation.values,
        measurement.standard_errors,
        recommendation.deviations,
        search_errors,
        strict=True,
    )
    return [(value - told) / math.hypot(*errors) for value, told, *errors in parts]


def _search_errors(report: FrontReport) -> list[float]:
    """Return the median standard error of the search's measurements, one an objective."""
    told = [trial.user_attrs.get("standard_errors") for trial in report.denoised.trials]
    known = np.array([row for row in told if row is not None], dtype=np.float64)
    if not len(known):
        return [0.0] * len(report.metric_names)
    median: list[float] = np.median(known, axis=0).tolist()
    return median
