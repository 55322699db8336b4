"""What a merged model's card says of its origin and of its quality."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from ....errors import SpecError
from ....objectives.checkpoints import Checkpoint
from ....objectives.checkpoints.hub import public_name
from ....objectives.evaluation import SPLITS
from ....objectives.merging import mergekit_yaml, weight_file
from ...spec.hashing import cached_hash
from ...spec.inputs import StudyInputs
from ...spec.study_spec import StudySpec
from ..front import FrontReport
from ..validation_study import last_validation
from .card import Provenance, Scores
from .licences import licence_of
from .mergekit_models import mergekit_models


def provenance_of(
    inputs: StudyInputs,
    groups: Mapping[str, Sequence[float]],
    title: str,
    scores: Mapping[str, Scores] | None = None,
    picture: str = "",
    parameters: Mapping[str, Any] | None = None,
) -> Provenance:
    """Return what a merge of a spec's models is made of.

    Args:
        inputs: Models and rules.
        groups: The weights of every search variable, one number an expert.
        title: First heading of the card.
        scores: From `scores_of`. Defaults to None: an unmeasured merge.
        picture: File of the front's picture beside the card.
        parameters: Of the trial in its study, where that searched the arm. Defaults to None: no
            trial made it.
    """
    spec, arm = inputs.spec, inputs.arm
    numbers = range(1, len(inputs.experts) + 1) if arm is None else arm.experts
    roles = ["base", *(f"expert {k}" for k in numbers)]
    parents = zip(roles, (inputs.base, *inputs.experts), strict=True)
    listed = weight_file(inputs.plan, groups)
    return Provenance(
        title=title,
        parents={role: _parent(checkpoint) for role, checkpoint in parents},
        operator=inputs.plan.settings.operator,
        dtype=spec.models.dtype,
        weights=listed,
        settings={
            **spec.merge.model_dump(mode="json", exclude=_left_out(spec)),
            "blocks": list(inputs.plan.settings.blocks),
        },
        scores=scores or {},
        mergekit=_mergekit(inputs, groups),
        picture=picture,
        arm=inputs.arm_name,
        parameters=parameters or {},
        precision=inputs.spec.merge.precision_of(listed),
    )


def _left_out(spec: StudySpec) -> set[str]:
    """Return keys of `merge` that a recipe does not list: told elsewhere, or not used."""
    return {"operator", "bounds"} | ({"precision"} if spec.merge.precision is None else set())


def _parent(checkpoint: Checkpoint) -> dict[str, str]:
    """Return a parent; paths of one machine say nothing elsewhere, so only hub ids are named."""
    found = {"name": checkpoint.directory.name, "hash": cached_hash(checkpoint)}
    if public := public_name(checkpoint.directory):
        source, _, commit = public.partition("@")
        commit, _, folder = commit.partition(":")
        found |= {"source": source, "commit": commit}
        found |= {"folder": folder} if folder else {}
    licence = licence_of(checkpoint.directory)
    return found | ({"licence": licence} if licence else {})


def _mergekit(inputs: StudyInputs, groups: Mapping[str, Sequence[float]]) -> str:
    names = mergekit_models(inputs, whole_paths=False)
    try:
        return mergekit_yaml(inputs.plan, groups, names, inputs.spec.models.dtype)
    except SpecError:  # mergekit has no such merge
        return ""


def scores_of(study: optuna.Study, report: FrontReport, trial: FrozenTrial) -> dict[str, Scores]:
    """Return what is known of a trial, most trustworthy first.

    On fresh questions (the trial was not chosen by them), as believed (noise-corrected), and as
    the search measured it: the front's models are there because that value was a lucky one.

    Args:
        study: Of the trial.
        report: Of the study.
        trial: Measured or not; a recommended one carries what is believed of it.
    """
    names = report.metric_names
    scores = {**_validated(study, trial), **_believed(report, trial)}
    errors = trial.user_attrs.get("standard_errors")
    if trial.values and errors:
        asked = trial.user_attrs.get("n_questions")
        pairs = zip(trial.values, errors, strict=True)
        scores[f"measured on {asked} questions of the search split"] = dict(
            zip(names, pairs, strict=True)
        )
    return scores


def _validated(study: optuna.Study, trial: FrozenTrial) -> dict[str, Scores]:
    found: dict[str, Scores] = {}
    for split in reversed(SPLITS):  # the test split last seen is worth most
        content: dict[str, Any] = last_validation(study, split) or {"models": []}
        for model in content["models"]:
            if model["number"] == trial.number:
                values, errors = model["values"], model["standard_errors"]
                title = f"{content['n_questions']} fresh questions (`{split}`)"
                found[title] = {name: (values[name], errors[name]) for name in values}
    return found


def _believed(report: FrontReport, trial: FrozenTrial) -> dict[str, Scores]:
    known = {other.number: other for other in report.annotated()}
    attributes = known.get(trial.number, trial).user_attrs
    if "denoised" not in attributes:
        return {}
    title, errors = "noise-corrected, errors on the study's questions", "denoised_errors"
    if "fresh_deviations" in attributes:  # a recommended model
        title, errors = "predicted, errors on other questions", "fresh_deviations"
    pairs = zip(attributes["denoised"], attributes[errors], strict=True)
    return {title: dict(zip(report.metric_names, pairs, strict=True))}
