"""A validation as an Optuna study of its own, beside the search it belongs to."""

import uuid
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from ...errors import StudyError
from ..seeding import fingerprint_of
from ..spec.study_spec import StudySpec
from ..storage.artifacts import Asked, answer_table, store_artifact
from ..storage.connection import artifact_store
from ..storage.identity import CREATED, database_of
from .predicted import ValidatedModel
from .validation import Validation

# What was validated, and with which result.
VALIDATES = "mergefront:validates"
RESULT = "mergefront:validation"


def open_validation(study: optuna.Study, split: str) -> optuna.Study:
    """Open the study `NAME.SPLIT` for a validation, or create it.

    Called when there is something to write: an unfinished validation leaves no empty study.

    Args:
        study: The search.
        split: Of the questions.

    Raises:
        StudyError: If a study of this name is no validation, or one of another search.
    """
    check_validation(study, split)
    opened = optuna.create_study(
        study_name=_name(study, split),
        storage=study._storage,
        directions=study.directions,
        load_if_exists=True,
    )
    if VALIDATES not in opened.user_attrs:
        opened.set_metric_names(study.metric_names or [])
        opened.set_user_attr(VALIDATES, _origin(study))
    if CREATED not in opened.user_attrs:
        opened.set_user_attr(CREATED, uuid.uuid4().hex)
    return opened


def _name(study: optuna.Study, split: str) -> str:
    return f"{study.study_name}.{split}"


def _origin(study: optuna.Study) -> dict[str, str]:
    return {"study": study.study_name, "fingerprint": fingerprint_of(study)}


def check_validation(study: optuna.Study, split: str) -> None:
    """Check that the study `NAME.SPLIT` is free for a validation, or one of this search.

    Args:
        study: The search.
        split: Of the questions.

    Raises:
        StudyError: If a study of this name is no validation, or one of another search.
    """
    name = _name(study, split)
    if name not in optuna.get_all_study_names(study._storage):
        return
    there = optuna.load_study(study_name=name, storage=study._storage)
    known = there.user_attrs.get(VALIDATES)
    if known != _origin(study) and (known or there.get_trials(deepcopy=False)):
        what = "is no validation" if known is None else "validates a search with other settings"
        raise StudyError(
            f"A validation of {study.study_name!r} needs the study {name!r}, but the one there "
            f"{what}. Delete it (`optuna delete-study --storage URL --study-name {name}`), or "
            "give the search another `study.name`."
        )


def record(
    validation: Validation, written: optuna.Study, spec: StudySpec, asked: Asked | None = None
) -> None:
    """Write a validation into its study; models that it has already are not added again.

    Each model is a COMPLETE trial with the parameters of the search's trial, whose number is its
    attribute `trial`, and with its per-question table as an artifact. optuna-dashboard
    shows the study like any other.

    Args:
        validation: Of a study's front.
        written: From `open_validation`.
        spec: Of the search.
        asked: The questions, for the tables of answers. Defaults to None: ids alone.
    """
    known = {trial.user_attrs["trial"] for trial in written.get_trials(deepcopy=False)}
    for model in validation.models:
        if model.number not in known:
            _add(written, model, spec, asked)
    written.set_user_attr(RESULT, validation.to_json())


def last_validation(study: optuna.Study, split: str) -> dict[str, Any] | None:
    """Return the newest validation of a study on a split; None if there is none."""
    name = _name(study, split)
    if name not in optuna.get_all_study_names(study._storage):
        return None
    attributes = optuna.load_study(study_name=name, storage=study._storage).user_attrs
    if attributes.get(VALIDATES, {}).get("fingerprint") != fingerprint_of(study):
        return None
    return attributes.get(RESULT)


def _add(study: optuna.Study, model: ValidatedModel, spec: StudySpec, asked: Asked | None) -> None:
    measurement = model.measurement
    attributes = {
        "trial": model.number,
        "label": model.label,
        "phase": model.trial.user_attrs.get("phase", ""),
        **measurement.attributes(),
    }
    name = f"trial-{model.number:05d}.answers.jsonl"
    # Studies of one name share a folder: of two databases, copied or made anew after a removal.
    mark = study.user_attrs.get(CREATED, "")
    owner = f"{study.study_name}/{database_of(study._storage)}/{mark}"
    table = answer_table(measurement.answers, asked)
    trial = create_trial(
        state=TrialState.COMPLETE,
        values=list(measurement.values),
        params=model.trial.params,
        distributions=model.trial.distributions,
        user_attrs=attributes,
        system_attrs=store_artifact(artifact_store(spec), owner, name, table),
        constraints={key: value for key, (value, _) in measurement.constraints.items()},
    )
    study.add_trial(trial)
