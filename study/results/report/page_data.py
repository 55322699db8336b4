"""A study as the data that the report's page draws: one object a model."""

import html
import json
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial

from ....objectives.evaluation.metric_table import metric_of
from ....objectives.merging.settings import is_choice
from ...first_trials import is_uniform
from ..front import FrontReport
from ..front_table import role
from .advice import predicted
from .figures import in_order
from .front_figures import mean_weight

# Of weights: as many as samplers propose.
_DIGITS = 4


def page_data(
    report: FrontReport, validations: Sequence[dict[str, Any]], spec: str
) -> dict[str, Any]:
    """Return what the page's script reads.

    Args:
        report: Of the study.
        validations: Of its front; the newest of the list is drawn.
        spec: Path of the study's file, for commands.
    """
    newest = validations[-1] if validations else None
    fresh = {model["number"]: model for model in newest["models"]} if newest else {}
    members = {trial.number for trial in report.trials}
    names = {name for trial in report.denoised.trials for name in trial.params}
    layers = in_order({name for name in names if not is_choice(name)})
    models = [
        _model(trial, trial.number in members, report.metric_names, fresh.get(trial.number))
        | {"weights": [_shown(trial.params.get(name)) for name in layers]}
        for trial in report.annotated()
    ]
    order = {trial.number: place for place, trial in enumerate(report.trials)}
    models.sort(key=lambda model: order.get(model["n"], len(order)))
    return {
        "metrics": [_metric(report, place) for place in range(len(report.metric_names))],
        "layers": layers,
        "models": models,
        "predicted": predicted(report),
        "best": report.knee,
        "split": html.escape(newest["split"]) if newest else None,
        "spec": spec,
    }


def _metric(report: FrontReport, place: int) -> dict[str, Any]:
    name = report.metric_names[place]
    return {
        "name": name,
        "html": html.escape(name),
        "unit": metric_of(name).unit,
        "maximize": report.directions[place] == "maximize",
        "reference": report.reference_point[place],
    }


def _model(
    trial: FrozenTrial, in_front: bool, names: Sequence[str], fresh: dict[str, Any] | None
) -> dict[str, Any]:
    attributes, title = trial.user_attrs, role(trial)
    shown = f"trial {trial.number}" + (f", {title}" if title and title != "search" else "")
    return {
        "n": trial.number,
        "role": title,
        "html": html.escape(shown),
        "phase": attributes.get("phase", ""),
        "front": in_front,
        "uniform": is_uniform(trial),
        "meanWeight": mean_weight(trial),
        "believed": attributes["denoised"],
        "errors": attributes["denoised_errors"],
        "measured": list(trial.values),
        "measuredErrors": attributes.get("standard_errors"),
        "validated": [fresh["values"][name] for name in names] if fresh else None,
        "validatedErrors": [fresh["standard_errors"][name] for name in names] if fresh else None,
        "beyond": bool(fresh and fresh["distinguishable"]),
    }


def _shown(weight: float | None) -> float | None:
    """Return a weight as the page shows it; None for what a model has not."""
    return None if weight is None else round(float(weight), _DIGITS)


def as_script(data: dict[str, Any]) -> str:
    """Return JSON that can stand inside a script element, whatever its texts are."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026")
