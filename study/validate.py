"""Measure the reported front on questions that the search never saw.

A front is chosen by the values it is reported with, so those values flatter it. Here every
model of the front, the parents and the uniform merges answer one fresh split; hypervolumes come
with bootstrap intervals over questions, paired: each resample asks all models the same questions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from ..objectives import Measurement, MergeObjective
from .front import FrontReport, hypervolume, is_uniform

_N_RESAMPLES = 1000
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class ValidatedModel:
    """One model on the fresh split.

    Args:
        label: Its role or trial.
        number: Of its trial.
        in_front: Whether the search reported it.
        in_uniform: Whether it is a parent or a uniform merge.
        measurement: On the fresh split.
    """

    label: str
    number: int
    in_front: bool
    in_uniform: bool
    measurement: Measurement


@dataclass(frozen=True)
class Validation:
    """The front and the uniform curve on one split.

    Args:
        report: Of the search.
        split: Name of the split.
        models: Front first, cheapest last, then parents and uniform merges.
        hypervolume: Of `front` and `uniform`.
        interval: 95 % bootstrap intervals of `front`, `uniform` and their `difference`.
    """

    report: FrontReport
    split: str
    models: list[ValidatedModel]
    hypervolume: dict[str, float]
    interval: dict[str, list[float]]

    def to_json(self) -> dict[str, Any]:
        """Return what `validate --format json` prints."""
        return {
            "study": self.report.study,
            "split": self.split,
            "n_questions": len(self.models[0].measurement.answers),
            "models": [
                {
                    "label": model.label,
                    "number": model.number,
                    "values": self.report.named(model.measurement.values),
                    "standard_errors": self.report.named(model.measurement.standard_errors),
                }
                for model in self.models
            ],
            "hypervolume": self.hypervolume,
            "interval": self.interval,
        }


def validate(
    report: FrontReport,
    study: optuna.Study,
    objective: MergeObjective,
    split: str,
    progress: Callable[[str], None] = lambda label: None,
) -> Validation:
    """Measure the front, the parents and the uniform merges again.

    Args:
        report: The front to check.
        study: It came from.
        objective: Over the questions of `split`, its backend loaded.
        split: Name of the split, for the result.
        progress: Told the label of each model before it is measured.
    """
    models = []
    for trial in _candidates(report):
        progress(_label(trial))
        models.append(_measure(trial, report, objective))
    scores = _scores(models, objective)
    volumes = _Volumes(report, study, models)
    everything = np.full((1, scores.shape[1]), 1.0)
    front, uniform = volumes.of(scores, everything)
    resampled = volumes.of(scores, _resamples(scores.shape[1]))
    return Validation(
        report,
        split,
        models,
        {"front": float(front[0]), "uniform": float(uniform[0])},
        _intervals(*resampled),
    )


def _candidates(report: FrontReport) -> list[FrozenTrial]:
    on_front = {trial.number for trial in report.trials}
    rest = [t for t in report.denoised.trials if is_uniform(t) and t.number not in on_front]
    return [*report.trials, *rest]


def _label(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("label", f"trial {trial.number}"))


def _measure(trial: FrozenTrial, report: FrontReport, objective: MergeObjective) -> ValidatedModel:
    on_front = any(trial.number == other.number for other in report.trials)
    measurement = objective.measure(trial.params)
    return ValidatedModel(_label(trial), trial.number, on_front, is_uniform(trial), measurement)


def _scores(models: Sequence[ValidatedModel], objective: MergeObjective) -> NDArray[np.float64]:
    """Return every answer's numbers: models x questions x metrics."""
    return np.array(
        [
            [[metric.per_answer(a) for metric in objective.metrics] for a in m.measurement.answers]
            for m in models
        ]
    )


def _resamples(n_questions: int) -> NDArray[np.float64]:
    """Return how often each question is asked in each resample: resamples x questions."""
    rng = np.random.default_rng(0)
    shares = np.full(n_questions, 1.0 / n_questions)
    return rng.multinomial(n_questions, shares, size=_N_RESAMPLES).astype(np.float64)


@dataclass(frozen=True)
class _Volumes:
    report: FrontReport
    study: optuna.Study
    models: Sequence[ValidatedModel]

    def of(
        self, scores: NDArray[np.float64], counts: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the hypervolumes of front and uniform curve under each row of counts."""
        means = np.einsum("mqk,rq->rmk", scores, counts) / counts.sum(axis=1)[:, None, None]
        front = [m.in_front for m in self.models]
        uniform = [m.in_uniform for m in self.models]
        return self._each(means[:, front]), self._each(means[:, uniform])

    def _each(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        point, directions = self.report.reference_point, self.study.directions
        return np.array([hypervolume(torch.from_numpy(m), point, directions) for m in means])


def _intervals(front: NDArray[np.float64], uniform: NDArray[np.float64]) -> dict[str, list[float]]:
    samples = {"front": front, "uniform": uniform, "difference": front - uniform}
    return {
        name: [float(x) for x in np.percentile(values, _INTERVAL)]
        for name, values in samples.items()
    }
