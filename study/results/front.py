"""The denoised Pareto front of a study, and how much of objective space it covers."""

import copy
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import optuna
import torch
from botorch.utils.multi_objective.pareto import is_non_dominated
from optuna.trial import FrozenTrial, TrialState
from torch import Tensor

from ...errors import StudyError
from ...samplers import (
    Adviser,
    Denoised,
    Preference,
    Recommendation,
    denoise,
    fit_study,
    preference_weights,
    read_off,
    signs,
)
from ..first_trials import is_uniform
from ..seeding import SPEC, WARNING, importance_of
from ..spec.study_spec import StudySpec
from .front_table import arm_counts, data_frame, html_table, rounded, tied_sets, with_interval
from .indicators import curve_interval, hypervolume_interval
from .indicators import hypervolume as hypervolume
from .recommendations import knee_of, reference_of, sized, to_json
from .uniform_curve import LayerwiseGain, curve_values, layerwise_gain

if TYPE_CHECKING:
    import pandas as pd

Number = TypeVar("Number", float, float | None)


def pareto_front(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials whose noise-free values are believed to be non-dominated.

    The values compared are the surrogate's posterior means at the trials' own points: the
    measured values of a noisy comparison's winners are the lucky ones. Works on any Optuna
    study with one objective or more; trials may carry `standard_errors`.

    Trials with constraints (`trial.set_constraint`) must be believed to keep to them, too.

    Args:
        study: With at least one COMPLETE trial for a front that is not empty.

    Returns:
        Copies, sorted by the first objective from its best; `user_attrs["denoised"]` and
        `user_attrs["denoised_errors"]` are aligned with the values. Empty if no trial is believed
        to keep to its constraints.
    """
    return _front_trials(study, denoise(study, importance_of(study)))


def _front_trials(study: optuna.Study, denoised: Denoised) -> list[FrozenTrial]:
    if not denoised.trials:
        return []
    maximized = denoised.means * signs(study.directions)
    allowed = eligible(denoised).nonzero().flatten()
    keep = allowed[is_non_dominated(maximized[allowed])].tolist()
    keep.sort(key=lambda row: -float(maximized[row, 0]))
    return [_annotated(denoised, row, copy.deepcopy(denoised.trials[row])) for row in keep]


def eligible(denoised: Denoised) -> Tensor:
    """Return which trials may be in a front: whole measurements that keep to the constraints.

    What was stopped early is known less well, and was clearly worse than something else.
    """
    whole = [trial.state == TrialState.COMPLETE for trial in denoised.trials]
    return denoised.feasible & torch.tensor(whole, dtype=torch.bool)


def _annotated(denoised: Denoised, row: int, trial: FrozenTrial) -> FrozenTrial:
    means, deviations = denoised.means[row].tolist(), denoised.deviations[row].tolist()
    trial.user_attrs = {**trial.user_attrs, "denoised": means, "denoised_errors": deviations}
    if trial.constraints:
        trial.user_attrs["feasible"] = bool(denoised.feasible[row])
    return trial


@dataclass(frozen=True)
class FrontReport:
    """A study's front with what it is measured against.

    In a notebook it shows itself as a table.

    Args:
        study: Its name.
        directions: One an objective.
        metric_names: One an objective.
        reference_point: One value an objective, in its own direction.
        anchors: Label of each parent -> metric -> measured value.
        hypervolume: Of all denoised trials that may be in a front.
        hypervolume_uniform: Of the denoised parents and uniform merges alone.
        hypervolume_curve: Of the uniform curve: the same, and what is believed between them. None
            where there is no curve: fewer than two uniform merges, or several experts.
        trials: The front.
        knee: Number of the front's best trial to who wants all objectives alike; None for an empty
            front.
        denoised: All trials.
        adviser: Recommends models; None where trials share no parameter.
        warning: Of how the answers were made. Defaults to None: there is none.
    """

    study: str
    directions: list[str]
    metric_names: list[str]
    reference_point: list[float]
    anchors: dict[str, dict[str, float]]
    hypervolume: float
    hypervolume_uniform: float
    trials: list[FrozenTrial]
    knee: int | None
    denoised: Denoised
    adviser: Adviser | None = None
    warning: str | None = None
    hypervolume_curve: float | None = None

    @cached_property
    def tied(self) -> list[list[int]]:
        """Which models of the front cannot be told apart, by number; see `tied_sets`."""
        return tied_sets(self.trials)

    @cached_property
    def recommended(self) -> list[Recommendation]:
        """What to take for each of a range of preferences; see `recommend`."""
        return self.recommend(None)

    @cached_property
    def layerwise(self) -> LayerwiseGain | None:
        """What layer-wise weights bring over the uniform curve; None where there is no curve."""
        return None if self.adviser is None else layerwise_gain(self.adviser, self.recommended)

    @cached_property
    def hypervolume_interval(self) -> tuple[float, float] | None:
        """95 % of `hypervolume`, by what is believed; None where trials share no parameter."""
        if self.adviser is None or not self.trials:
            return None
        return hypervolume_interval(self.adviser, self.trials)

    @cached_property
    def hypervolume_curve_interval(self) -> tuple[float, float] | None:
        """95 % of `hypervolume_curve`, by what is believed; None where there is no curve."""
        return None if self.adviser is None else curve_interval(self.adviser)

    @property
    def counted(self) -> Tensor:
        """Believed values; the reference point, which adds no volume, for the ineligible."""
        reference = torch.tensor(self.reference_point, dtype=torch.double)
        return torch.where(eligible(self.denoised)[:, None], self.denoised.means, reference)

    @property
    def shown_hypervolume(self) -> str:
        """The hypervolume as a text, with its interval if that is known."""
        return with_interval(self.hypervolume, self.hypervolume_interval)

    @property
    def shown_curve(self) -> str:
        """The same of the uniform curve's; "" where there is no curve."""
        volume = self.hypervolume_curve
        return "" if volume is None else with_interval(volume, self.hypervolume_curve_interval)

    def recommend(self, preferences: Iterable[Preference] | None) -> list[Recommendation]:
        """Return what to take for each preference; see `recommend`.

        Raises:
            ValueError: If a preference does not fit the objectives.
        """
        weights = preference_weights(preferences, len(self.metric_names))
        if self.adviser is None:
            return []
        found = self.adviser.recommend(weights)
        return [sized(one, self.metric_names, self.denoised.trials) for one in found]

    def to_dataframe(self) -> "pd.DataFrame":
        """Return one row a model, by trial number: believed and measured values, and weights.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        return data_frame(self.trials, self.metric_names)

    def _repr_html_(self) -> str:
        table = html_table(self.trials, self.metric_names, self.knee)
        return f"{table}<p>{html.escape(self.summary())}</p>"

    def summary(self) -> str:
        """Return the hypervolumes and the most balanced model in one line."""
        if not self.trials:
            return "no trial is believed to keep to the constraints yet"
        if len(self.metric_names) == 1:
            return self._best_line()
        pairs = zip(self.metric_names, self.reference_point, strict=True)
        reference = ", ".join(f"{name} {value:.3g}" for name, value in pairs)
        return (
            f"hypervolume {self.shown_hypervolume}, {self._beside()}; "
            f"reference point {reference}; knee: trial {self.knee}"
        )

    def _beside(self) -> str:
        """Return the hypervolumes of the uniform curve and of the merges that it goes through."""
        alone = f"uniform merges alone {self.hypervolume_uniform:.3f}"
        baseline = self.baseline
        gain = f" ({100 * (self.hypervolume / baseline - 1):+.0f} %)" if baseline > 0 else ""
        if self.hypervolume_curve is None:
            return f"{alone}{gain}"
        return f"uniform curve {self.shown_curve}{gain}, {alone}"

    @property
    def baseline_name(self) -> str:
        """What `baseline` is the hypervolume of."""
        return "uniform merges" if self.hypervolume_curve is None else "uniform curve"

    @property
    def baseline(self) -> float:
        """Hypervolume that the front is compared with: the uniform curve's where there is one."""
        curve = self.hypervolume_curve
        return self.hypervolume_uniform if curve is None else max(curve, self.hypervolume_uniform)

    def _best_line(self) -> str:
        """Return the best model of a study with one objective, beside the best uniform merge."""
        (name,), best = self.metric_names, self.trials[0].user_attrs
        shown = rounded(best["denoised"][0], best["denoised_errors"][0])
        flip = 1 if self.directions[0] == "maximize" else -1
        rows = zip(self.denoised.trials, self.denoised.means[:, 0].tolist(), strict=True)
        uniform = [(flip * mean, trial.number) for trial, mean in rows if is_uniform(trial)]
        beside = ""
        if uniform:
            value, number = max(uniform)
            beside = f"; best uniform merge or parent: trial {number}, {name} {flip * value:.3g}"
        return f"best: trial {self.knee}, {name} {shown}{beside}"

    def to_json(self) -> dict[str, Any]:
        """Return what `front --format json` prints."""
        return {
            "study": self.study,
            "directions": self.directions,
            "metric_names": self.metric_names,
            "reference_point": self.reference_point,
            "anchors": self.anchors,
            "hypervolume": self.hypervolume,
            "hypervolume_interval": self.hypervolume_interval,
            "hypervolume_uniform": self.hypervolume_uniform,
            "hypervolume_curve": self.hypervolume_curve,
            "hypervolume_curve_interval": self.hypervolume_curve_interval,
            "knee": self.knee,
            "tied": self.tied,
            "warning": self.warning,
            "trials": [self._trial_json(trial) for trial in self.trials],
            "layerwise": self.layerwise and self.layerwise.to_json(self.metric_names),
            "recommended": [to_json(r, self.metric_names) for r in self.recommended],
            **({"arms": arms} if (arms := arm_counts(self.denoised.trials)) else {}),
        }

    def check_models(self) -> None:
        """Check that there is a front to work with.

        Raises:
            StudyError: If no trial is believed to keep to the constraints.
        """
        if not self.trials:
            raise StudyError(
                f"No trial of study {self.study!r} is believed to keep to its constraints yet. "
                "Continue it with `mergefront run`, or loosen `constraints` under another name."
            )

    def annotated(self) -> list[FrozenTrial]:
        """Return all trials with their denoised values; not to be changed."""
        trials = enumerate(self.denoised.trials)
        return [_annotated(self.denoised, row, copy.copy(trial)) for row, trial in trials]

    def named(self, values: Sequence[Number] | None) -> dict[str, Number] | None:
        """Return one value an objective under the metrics' names."""
        return None if values is None else dict(zip(self.metric_names, values, strict=True))

    def _trial_json(self, trial: FrozenTrial) -> dict[str, Any]:
        attributes = trial.user_attrs
        return {
            "number": trial.number,
            "values": self.named(trial.values),
            "standard_errors": self.named(attributes.get("standard_errors")),
            "denoised": self.named(attributes["denoised"]),
            "denoised_errors": self.named(attributes["denoised_errors"]),
            "deviations": self.named(attributes["denoised_errors"]),
            "params": trial.params,
            "user_attrs": attributes,
        }


def front_report(study: optuna.Study, spec: StudySpec) -> FrontReport:
    """Denoise a study and compare its front with the uniform curve.

    Raises:
        StudyError: If no trial is COMPLETE yet.
    """
    names = metric_names(study, spec)
    return _report(study, names, reference_asked(study, spec), spec.importance.trust)


def plain_report(study: optuna.Study) -> FrontReport:
    """Denoise any Optuna study; the reference point is inferred from its values.

    Raises:
        StudyError: If no trial is COMPLETE yet.
    """
    n = len(study.directions)
    names = study.metric_names or [f"objective {i}" for i in range(n)]
    return _report(study, names, [None] * n, None)


def _report(
    study: optuna.Study,
    names: list[str],
    given: Sequence[float | None],
    trust: float | Literal["learned"] | None,
) -> FrontReport:
    model = fit_study(study, importance_of(study), trust, same_questions=SPEC in study.user_attrs)
    denoised = denoise(study) if model is None else read_off(model, study)
    if not denoised.trials:
        raise StudyError(
            f"Study {study.study_name!r} has no finished trial yet. Continue it with "
            "`mergefront run`."
        )
    anchors = anchors_of(denoised.trials, names)
    reference = reference_of(study, denoised.means, denoised.trials, given)
    front = _front_trials(study, denoised)
    adviser = None if model is None else Adviser.of(model, study, reference)
    uniform, curve = _uniform(denoised), None if adviser is None else curve_values(adviser)
    volumes = [hypervolume(uniform, reference, study.directions)]
    if curve is not None:
        volumes.append(hypervolume(torch.cat([uniform, curve]), reference, study.directions))
    return FrontReport(
        study=study.study_name,
        directions=[direction.name.lower() for direction in study.directions],
        metric_names=names,
        reference_point=reference,
        anchors=anchors,
        hypervolume=hypervolume(denoised.means[eligible(denoised)], reference, study.directions),
        hypervolume_uniform=volumes[0],
        trials=front,
        knee=knee_of(adviser, front),
        denoised=denoised,
        adviser=adviser,
        warning=study.user_attrs.get(WARNING),
        hypervolume_curve=volumes[-1] if len(volumes) > 1 else None,
    )


def metric_names(study: optuna.Study, spec: StudySpec) -> list[str]:
    """Return the names under which the study's values were measured, whatever the spec says now.

    Raises:
        StudyError: If neither tells them.
    """
    names = study.metric_names or spec.metric_names
    if len(names) != len(study.directions):
        raise StudyError(
            f"Study {study.study_name!r} has {len(study.directions)} objectives, and the spec "
            f"names {len(names)}: {', '.join(names)}. Restore the spec's `objectives`."
        )
    return list(names)


def reference_asked(study: optuna.Study, spec: StudySpec) -> list[float | None]:
    """Return the spec's part of the reference point, for the study's own metrics."""
    asked = dict(zip(spec.metric_names, (o.reference for o in spec.objectives), strict=True))
    return [asked.get(name) for name in metric_names(study, spec)]


def _uniform(denoised: Denoised) -> Tensor:
    rows = torch.tensor([is_uniform(trial) for trial in denoised.trials], dtype=torch.bool)
    return denoised.means[rows & denoised.feasible]


def anchors_of(trials: Sequence[FrozenTrial], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return each parent's label, metrics and measured values."""
    return {
        trial.user_attrs.get("label", str(trial.number)): dict(
            zip(names, trial.values, strict=True)
        )
        for trial in trials
        if trial.user_attrs.get("phase") == "parent"
    }
