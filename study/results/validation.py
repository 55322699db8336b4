"""Measure the reported front on questions that the search never saw.

A front is chosen by the values it is reported with, so those values flatter it. Here every
model of the front, the parents and the uniform merges answer one fresh split; hypervolumes come
with bootstrap intervals over questions, paired: each resample asks all models the same questions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from ...objectives import MergeObjective
from ...objectives.evaluation import Answer
from ...objectives.evaluation.clusters import resamples
from ...objectives.evaluation.metrics import clusters_of
from ...objectives.evaluation.paired import Criterion, compared_with_parents, gains_of_best
from ...objectives.merging.settings import with_arm
from ...samplers import signs
from ..first_trials import is_uniform
from .front import FrontReport, hypervolume
from .predicted import (
    PredictedModel,
    ValidatedModel,
    as_predicted,
    fresh_deviations_of,
    measure_recommended,
)
from .uniform_curve import straight_curve

_N_RESAMPLES = 1000
_INTERVAL = (2.5, 97.5)
# Share of a hypervolume below which a gain is none.
_SMALLEST_GAIN = 0.01
# Points between two neighbouring uniform merges that a model is compared with.
_N_BETWEEN = 20

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Validation:
    """The front and the uniform curve on one split.

    Args:
        report: Of the search.
        split: Name of the split.
        models: Front first, cheapest last, then parents and uniform merges.
        hypervolume: Of `front`, of the parents and `uniform` merges, and of the uniform `curve`,
            straight between them.
        interval: 95 % bootstrap intervals (pivotal, over questions) of the same, of the
            `difference` of front and uniform merges, of the front's `gain` over the curve, and of
            `survives`, the gain as a share of what the search reported.
        recommended: Models that nobody had measured, from one end of the front to the other.
        criteria: Answers to the spec's criteria.
        paired: The front's models beside the parents, in the metrics that are means.
    """

    report: FrontReport
    split: str
    models: list[ValidatedModel]
    hypervolume: dict[str, float]
    interval: dict[str, list[float]]
    recommended: list[PredictedModel] = field(default_factory=list)
    criteria: list[dict[str, object]] = field(default_factory=list)
    paired: list[dict[str, object]] = field(default_factory=list)

    @property
    def survives(self) -> float | None:
        """Return which share of the search's gain over the uniform curve is left.

        None if the search reported too small a gain to be divided by.
        """
        by_curve = "curve" in self.hypervolume
        reported = _reported_gain(self.report, by_curve)
        baseline = self.hypervolume["curve" if by_curve else "uniform"]
        return None if reported is None else (self.hypervolume["front"] - baseline) / reported

    def to_json(self) -> dict[str, Any]:
        """Return what `validate --format json` prints."""
        return {
            "study": self.report.study,
            "split": self.split,
            "n_questions": self.models[0].measurement.n_questions,
            "models": [self._model_json(model) for model in self.models],
            "hypervolume": self.hypervolume,
            "hypervolume_search": {
                "front": self.report.hypervolume,
                "uniform": self.report.hypervolume_uniform,
                "curve": self.report.baseline,
            },
            "survives": self.survives,
            "interval": self.interval,
            "recommended": [model.to_json(self.report) for model in self.recommended],
            "as_predicted": self.as_predicted,
            "front_as_predicted": self.front_as_predicted,
            "criteria": self.criteria,
            "paired": self.paired,
        }

    @property
    def as_predicted(self) -> dict[str, int] | None:
        """Return how many values of recommended models lie in their predicted 95 % intervals.

        None if no model was recommended that nobody had measured.
        """
        return as_predicted(self.recommended)

    @property
    def front_as_predicted(self) -> dict[str, int] | None:
        """Return the same of the front's models, which were chosen for their believed values."""
        return as_predicted(model for model in self.models if model.in_front)

    def _model_json(self, model: ValidatedModel) -> dict[str, Any]:
        return {
            "label": model.label,
            "number": model.number,
            "in_front": model.in_front,
            "values": self.report.named(model.measurement.values),
            "standard_errors": self.report.named(model.measurement.standard_errors),
            "denoised": self.report.named(model.trial.user_attrs["denoised"]),
            "denoised_errors": self.report.named(model.trial.user_attrs["denoised_errors"]),
            "deviations": self.report.named(model.trial.user_attrs["denoised_errors"]),
            "fresh_deviations": self.report.named(model.fresh_deviations),
            # The same as `denoised` under its older name.
            "search": self.report.named(model.trial.user_attrs["denoised"]),
            "beyond_uniform": model.beyond_uniform,
            "distinguishable": model.distinguishable if model.in_front else None,
        }


def validate(
    report: FrontReport,
    study: optuna.Study,
    objective: MergeObjective,
    split: str,
    progress: Callable[[str], None] = lambda label: None,
    criteria: Sequence[Criterion] = (),
) -> Validation:
    """Measure front, parents and uniform merges again, and recommended models the first time.

    Args:
        report: The front to check.
        study: It came from.
        objective: Over the questions of `split`, its backend loaded.
        split: Name of the split, for the result.
        progress: Told the label of each model before it is measured.
        criteria: To be answered.

    Raises:
        StudyError: If no trial is believed to keep to the constraints.
    """
    report.check_models()
    models = []
    for trial in _candidates(report):
        progress(_label(trial))
        models.append(_measure(trial, report, objective))
    answers = models[0].measurement.answers
    measured = _values(models, objective, np.ones((1, len(answers))))
    drawn = _values(models, objective, resample_questions(answers))
    volumes = _Volumes(report, study, models)
    flips = signs(study.directions).numpy()
    covered, reported = volumes.of(measured), _reported_gain(report)
    samples = _reflected(_derived(volumes.of(drawn), reported), _derived(covered, reported))
    labels = [model.label for model in models]
    believed = {
        row: model.trial.user_attrs["denoised"]
        for row, model in enumerate(models)
        if model.in_front
    }
    gains = gains_of_best(criteria, report.metric_names, labels, believed, drawn * flips, flips)
    quantities = {**samples, "gain over uniform": samples["gain"], **gains}
    return Validation(
        report,
        split,
        _compared(models, drawn * flips),
        {name: float(values[0]) for name, values in covered.items()},
        {name: _interval(values) for name, values in samples.items()},
        measure_recommended(report, objective, progress),
        [criterion.answer(quantities) for criterion in criteria],
        compared_with_parents(
            [(m.label, m.in_front, _is_parent(m), m.measurement.answers) for m in models],
            objective.metrics,
        ),
    )


def _is_parent(model: ValidatedModel) -> bool:
    return model.trial.user_attrs.get("phase") == "parent"


def _reported_gain(report: FrontReport, by_curve: bool = True) -> float | None:
    baseline = report.baseline if by_curve else report.hypervolume_uniform
    gain = report.hypervolume - baseline
    return gain if gain > _SMALLEST_GAIN * report.hypervolume else None


def _candidates(report: FrontReport) -> list[FrozenTrial]:
    on_front = {trial.number for trial in report.trials}
    everything = report.annotated()
    rest = [t for t in everything if is_uniform(t) and t.number not in on_front]
    return [*report.trials, *rest]


def _label(trial: FrozenTrial) -> str:
    name = with_arm(f"trial {trial.number}", trial.params)
    return str(trial.user_attrs.get("label", name))


def _measure(trial: FrozenTrial, report: FrontReport, objective: MergeObjective) -> ValidatedModel:
    on_front = any(trial is other for other in report.trials)
    measurement = objective.measure(trial.params)
    in_uniform = is_uniform(trial) and trial.user_attrs.get("feasible", True)
    errors = fresh_deviations_of(report, trial)
    return ValidatedModel(_label(trial), trial, on_front, in_uniform, measurement, errors)


def _values(models: Sequence[ValidatedModel], objective: MergeObjective, counts: Array) -> Array:
    """Return every model's values under each row of counts: resamples x models x objectives."""
    by_model = [
        [metric.resampled(model.measurement.answers, counts) for metric in objective.metrics]
        for model in models
    ]
    return np.array(by_model).transpose(2, 0, 1)


def resample_questions(answers: Sequence[Answer]) -> Array:
    """Return how often each answer counts in each resample: resamples x answers.

    Every task keeps its number of clusters: questions with all their repeats, or questions that
    belong together.
    """
    by_task: dict[str, list[int]] = {}
    for row, answer in enumerate(answers):
        by_task.setdefault(answer.task, []).append(row)
    counts = np.zeros((_N_RESAMPLES, len(answers)))
    for seed, rows in enumerate(by_task.values()):
        clusters = clusters_of([answers[row] for row in rows])
        counts[:, rows] = resamples(len(rows), _N_RESAMPLES, seed, clusters)
    return counts


@dataclass(frozen=True)
class _Volumes:
    report: FrontReport
    study: optuna.Study
    models: Sequence[ValidatedModel]

    def of(self, values: Array) -> dict[str, Array]:
        """Return the hypervolumes of front, uniform merges and uniform curve in each resample."""
        front = [m.in_front for m in self.models]
        uniform = [m.in_uniform for m in self.models]
        # Many points of many objectives take long.
        n_between = _N_BETWEEN if values.shape[2] < 3 else _N_BETWEEN // 4
        return {
            "front": self._each(values[:, front]),
            "uniform": self._each(values[:, uniform]),
            "curve": self._each(_curve(self.models, values, n_between)),
        }

    def _each(self, values: Array) -> Array:
        if not values.shape[1]:
            return np.zeros(len(values))
        point, directions = self.report.reference_point, self.study.directions
        return np.array([hypervolume(torch.from_numpy(v), point, directions) for v in values])


def _derived(volumes: dict[str, Array], reported_gain: float | None) -> dict[str, Array]:
    """Return the hypervolumes of each resample and what is made of them."""
    gain = volumes["front"] - volumes["curve"]
    samples = {**volumes, "difference": volumes["front"] - volumes["uniform"], "gain": gain}
    if reported_gain is not None:
        samples["survives"] = gain / reported_gain
    return samples


def _reflected(drawn: Mapping[str, Array], measured: Mapping[str, Array]) -> dict[str, Array]:
    """Return resamples on the other side of what was measured, as pivotal intervals want them.

    The front of noisy values covers more than the true one, and a resample's covers more than the
    measured one for the same reason: what is above the measured value is as far above the truth.
    """
    return {name: 2.0 * measured[name] - values for name, values in drawn.items()}


def _interval(values: Array) -> list[float]:
    return [float(x) for x in np.percentile(values, _INTERVAL)]


def _compared(models: Sequence[ValidatedModel], maximized: Array) -> list[ValidatedModel]:
    """Return the models, those of the front with their place beyond the uniform curve.

    Args:
        models: All.
        maximized: Resamples x models x objectives, larger is better.
    """
    curve = _curve(models, maximized, _N_BETWEEN)
    return [
        replace(model, beyond_uniform=_share_beyond(maximized[:, row], curve))
        if model.in_front
        else model
        for row, model in enumerate(models)
    ]


def _curve(models: Sequence[ValidatedModel], values: Array, n_between: int) -> Array:
    """Return the uniform curve in each resample; see `straight_curve`."""
    rows = [row for row, model in enumerate(models) if model.in_uniform]
    return straight_curve([models[row].trial for row in rows], values[:, rows], n_between)


def _share_beyond(values: Array, curve: Array) -> float:
    """Return the share of resamples in which no point of the curve is as good everywhere."""
    as_good: NDArray[np.bool_] = np.all(curve >= values[:, None], axis=2)
    return float(1.0 - np.any(as_good, axis=1).mean())
