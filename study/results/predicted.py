"""Models on fresh questions, measured again or for the first time: as predicted or not."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from optuna.trial import FrozenTrial

from ...objectives import Measurement, MergeObjective
from ...samplers import Recommendation, fresh_deviations
from .front import FrontReport
from .recommendations import full_label, spread_out

# Standard errors within which a value is what was predicted: 95 %.
_WITHIN = 1.96
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
        fresh_deviations: How far the values on other questions may lie from those believed.
        beyond_uniform: Share of resamples in which nothing on the uniform curve is as good in all
            objectives; None for what is not in the front.
    """

    label: str
    trial: FrozenTrial
    in_front: bool
    in_uniform: bool
    measurement: Measurement
    fresh_deviations: list[float]
    beyond_uniform: float | None = None

    @property
    def number(self) -> int:
        """Of its trial."""
        return self.trial.number

    @property
    def off(self) -> list[float | None]:
        """For each objective, how far the measured value lies from the believed one; see `off`."""
        return off(self.measurement, self.trial.user_attrs["denoised"], self.fresh_deviations)

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
    """

    recommendation: Recommendation
    measurement: Measurement

    @property
    def off(self) -> list[float | None]:
        """For each objective, how far the measured value lies from the predicted one."""
        told = self.recommendation
        return off(self.measurement, told.values, told.fresh_deviations)

    @property
    def label(self) -> str:
        """Such as `recommended 0.50`, with the arm where it is searched."""
        return full_label(self.recommendation)

    def to_json(self, report: FrontReport) -> dict[str, Any]:
        """Return what `validate --format json` prints of it."""
        return {
            "label": self.label,
            "preference": self.recommendation.preference,
            "params": self.recommendation.params,
            "predicted": report.named(self.recommendation.values),
            "deviations": report.named(self.recommendation.deviations),
            "fresh_deviations": report.named(self.recommendation.fresh_deviations),
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
            progress(full_label(recommendation))
            models.append(PredictedModel(recommendation, objective.measure(recommendation.params)))
    return models


def off(
    measurement: Measurement, told: Sequence[float], deviations: Sequence[float]
) -> list[float | None]:
    """Return measured values less predicted ones, in standard errors of the difference.

    None for what is the same without asking anything, such as `memory`: that is no prediction.

    Args:
        measurement: On other questions.
        told: Predicted values.
        deviations: Of the predictions on other questions.
    """
    parts = zip(measurement.values, told, measurement.standard_errors, deviations, strict=True)
    return [_score(value - predicted, math.hypot(*errors)) for value, predicted, *errors in parts]


def _score(difference: float, error: float) -> float | None:
    """Return a difference in its errors, where neither may be any."""
    if error > 0:
        return difference / error
    return math.copysign(math.inf, difference) if difference else None


def as_predicted(models: Iterable[PredictedModel | ValidatedModel]) -> dict[str, int] | None:
    """Return how many values lie in their predicted 95 % intervals, and of how many.

    None where there are no models.
    """
    scores = [score for model in models for score in model.off if score is not None]
    if not scores:
        return None
    return {"values": len(scores), "within": sum(abs(score) <= _WITHIN for score in scores)}


def fresh_deviations_of(report: FrontReport, trial: FrozenTrial) -> list[float]:
    """Return how far a trial's values on other questions may lie from those believed.

    Args:
        report: Of the study.
        trial: Of its `trials` or `annotated`.
    """
    believed, errors = trial.user_attrs["denoised"], trial.user_attrs["denoised_errors"]
    if report.adviser is None:
        return list(errors)
    shared = report.adviser.question_errors(torch.tensor([believed], dtype=torch.double))[0]
    return fresh_deviations(errors, shared.tolist())
