"""What to take: the recommended models of a study, whether anybody measured them or not."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState, create_trial
from torch import Tensor

from ...errors import SpecError, StudyError
from ...objectives.evaluation.metric_table import split_name
from ...objectives.merging.precision import known_size
from ...objectives.merging.settings import with_arm
from ...samplers import (
    Adviser,
    Preference,
    Recommendation,
    Trust,
    check_point,
    fit_study,
    infer_reference_point,
    preference_weights,
    signs,
)
from ..first_trials import is_uniform
from ..seeding import SPEC, importance_of
from ..spec.study_spec import StudySpec
from .front_table import role

# How far beyond the worse parent the reference point lies, as a share of the parents' range.
_MARGIN = 0.1
# Differences below it are of arithmetic.
_ROUNDING = 1e-9
# Rows of tables, and models that a validation measures.
_N_SHOWN = 5
PHASE = "recommended"


def recommend(
    study: optuna.Study,
    preferences: Iterable[Preference] | None = None,
    reference_point: Sequence[float] | None = None,
) -> list[Recommendation]:
    """Return what to take for each preference: a model that nobody measured, or a trial.

    The best convex combination of the evaluated points under the denoised surrogate; where it is
    not clearly better than the best evaluated trial, that trial is named (`.number`). Predicted
    values have `.deviations`, which say which model is better, and `.fresh_deviations`, which say
    how good it is on other questions; `mergefront validate` measures them. Works on any Optuna
    study.

    Args:
        study: With one objective or more.
        preferences: Weights of the objectives, one row each; for two objectives a number is the
            weight of the first. Defaults to None: 19 for two objectives, 38 for more.
        reference_point: One value an objective, in its own direction; worth nothing. Defaults to
            None: just beyond the worse parent, or inferred from the denoised front.

    Returns:
        One a preference, in their order; empty if there is no finished trial, or none is believed
        to keep to the constraints.

    Raises:
        ValueError: If a preference or the reference point does not fit the objectives.
    """
    check_point("reference_point", reference_point, len(study.directions))
    return _advise(study, preferences, reference_point, None)


def _advise(
    study: optuna.Study,
    preferences: Iterable[Preference] | None,
    reference: Sequence[float | None] | None,
    trust: Trust | None,
) -> list[Recommendation]:
    """Return what to take; what the reference point leaves open is inferred."""
    weights = preference_weights(preferences, len(study.directions))
    model = fit_study(study, importance_of(study), trust, same_questions=SPEC in study.user_attrs)
    if model is None:
        return []
    means = model.believed[0] * signs(study.directions)
    point = reference_of(study, means, model.trials, reference)
    found = Adviser.of(model, study, point).recommend(weights)
    return [sized(one, study.metric_names or [], model.trials) for one in found]


def sized(
    found: Recommendation, names: Sequence[str], trials: Sequence[FrozenTrial]
) -> Recommendation:
    """Return a recommendation with the bytes that its weights take, where trials tell them.

    Args:
        found: With predicted values.
        names: Of the objectives.
        trials: Measured.
    """
    values, deviations, errors = [*found.values], [*found.deviations], [*found.question_errors]
    for j, name in enumerate(names):
        if split_name(name)[0] == "memory":
            rows = [(t.params, t.values[j]) for t in trials if t.values]
            size = known_size(found.params, *zip(*rows, strict=True)) if rows else None
            if size is not None:
                values[j], deviations[j], errors[j] = size, 0.0, 0.0
    return replace(found, values=values, deviations=deviations, question_errors=errors)


def reference_of(
    study: optuna.Study,
    means: Tensor,
    trials: Sequence[FrozenTrial],
    given: Sequence[float | None] | None = None,
) -> list[float]:
    """Return the reference point; what the spec leaves open lies just beyond the worse parent.

    Where the parents are equal in an objective, it lies beyond the worst value of the front:
    something must lie beyond in every objective, or every volume is 0.

    Args:
        study: For its directions, and its spec.
        means: Denoised values of the trials, `n x m`-dim.
        trials: Measured, with their labels.
        given: What the spec says. Defaults to None: as the study remembers it.
    """
    flips = signs(study.directions)
    inferred = infer_reference_point(means * flips)
    parents = [
        row if "answers" in t.user_attrs else t.values  # of other questions: only equated ones fit
        for t, row in zip(trials, means.tolist(), strict=True)
        if t.user_attrs.get("phase") == "parent"
    ]
    if len(parents) > 1:
        rows = torch.tensor(parents, dtype=torch.double) * flips
        worst, range_ = rows.amin(dim=0), rows.amax(dim=0) - rows.amin(dim=0)
        beyond = worst - _MARGIN * range_
        inferred = torch.where(range_ > _ROUNDING, beyond, torch.minimum(inferred, worst))
    if given is None:
        objectives = study.user_attrs.get(SPEC, {}).get("objectives", [])
        given = [o.get("reference") for o in objectives] or [None] * len(flips)
    return [i if g is None else g for g, i in zip(given, (inferred * flips).tolist(), strict=True)]


def knee_of(adviser: Adviser | None, front: Sequence[FrozenTrial]) -> int | None:
    """Return the front's trial with the best expected utility to who wants all objectives alike.

    Means alone would name the luckiest.
    """
    if adviser is None or not front:
        return front[0].number if front else None
    m = len(adviser.span)
    utilities = adviser.of_trials(torch.full((1, m), 1.0 / m, dtype=torch.double))[:, 0]
    numbers = [trial.number for trial in adviser.model.trials]
    return max(front, key=lambda t: float(utilities[numbers.index(t.number)])).number


def spread_out(recommended: Sequence[Recommendation]) -> list[Recommendation]:
    """Return a few recommendations that differ, from one end of the front to the other."""
    if len(recommended) > _N_SHOWN:
        step = len(recommended) / _N_SHOWN
        recommended = [recommended[int((k + 0.5) * step)] for k in range(_N_SHOWN)]
    different = [b for a, b in pairwise(recommended) if a.params != b.params]
    return [*recommended[:1], *different]


def label_of(recommendation: Recommendation) -> str:
    """Return a name for tables, such as `recommended 0.50`."""
    weights = recommendation.preference
    shown = weights[:1] if len(weights) == 2 else weights
    return f"{PHASE} {'/'.join(f'{weight:.2f}' for weight in shown)}"


def full_label(recommendation: Recommendation) -> str:
    """Return the same with operator and experts where they are searched."""
    return with_arm(label_of(recommendation), recommendation.params)


def which_model(recommendation: Recommendation, trials: Sequence[FrozenTrial]) -> str:
    """Return what is recommended: `trial 0, base`, `a merge nobody measured, ties of 1+2`.

    Args:
        recommendation: Of a study.
        trials: Measured ones of it.
    """
    number = recommendation.number
    name = "a merge nobody measured" if number is None else f"trial {number}"
    trial = next((t for t in trials if t.number == number), None)
    if trial is not None and is_uniform(trial):
        return f"{name}, {role(trial)}"
    return with_arm(name, recommendation.params)


def as_trial(recommendation: Recommendation, trials: Sequence[FrozenTrial]) -> FrozenTrial:
    """Return a recommended model as a trial that has not been measured.

    Args:
        recommendation: Of a study.
        trials: The study's.
    """
    distributions = {name: d for t in trials for name, d in t.distributions.items()}
    attributes = {
        "label": label_of(recommendation),
        "phase": PHASE,
        "denoised": recommendation.values,
        "denoised_errors": recommendation.deviations,
        "fresh_deviations": recommendation.fresh_deviations,
        "preference": recommendation.preference,
    }
    return create_trial(
        state=TrialState.WAITING,
        params=recommendation.params,
        distributions={name: distributions[name] for name in recommendation.params},
        user_attrs=attributes,
    )


def parse_preference(text: str, m: int) -> list[float]:
    """Return the weights that the command line names: `0.5`, or one an objective, `1,2,1`.

    Raises:
        SpecError: If they do not fit the objectives.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
        told = numbers[0] if len(numbers) == 1 and m == 2 else numbers
        return preference_weights([told], m)[0].tolist()
    except ValueError as error:
        raise SpecError(f"--preference {text!r} is none: {error}") from error


def recommended_trial(
    study: optuna.Study, spec: StudySpec, preference: Sequence[float]
) -> FrozenTrial:
    """Return what to take for one preference: a trial, or an unmeasured one that waits.

    Raises:
        StudyError: If no trial is finished, or none is believed to keep to the constraints.
    """
    given = [objective.reference for objective in spec.objectives]
    chosen = _advise(study, [preference], given, spec.importance.trust)
    if not chosen:
        raise StudyError(
            f"Study {study.study_name!r} has no finished trial that is believed to keep to its "
            "constraints yet. Continue it with `mergefront run`."
        )
    trials = study.get_trials(deepcopy=False)
    if chosen[0].number is not None:
        return trials[chosen[0].number]
    return as_trial(chosen[0], trials)


def to_json(recommendation: Recommendation, names: Sequence[str]) -> dict[str, Any]:
    """Return what `front --format json` prints of a recommendation.

    Args:
        recommendation: Of the study.
        names: Of its metrics.
    """
    return {
        "preference": recommendation.preference,
        "params": recommendation.params,
        "values": dict(zip(names, recommendation.values, strict=True)),
        "deviations": dict(zip(names, recommendation.deviations, strict=True)),
        "fresh_deviations": dict(zip(names, recommendation.fresh_deviations, strict=True)),
        "utility": recommendation.utility,
        "number": recommendation.number,
        "gain": recommendation.gain,
        "probability": recommendation.probability,
    }
