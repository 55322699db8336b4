"""A validation as an Optuna study of its own, beside the search it belongs to."""

from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from .artifacts import answer_table, store_artifact
from .seeding import fingerprint_of
from .spec import StudySpec
from .storage import artifact_store
from .validate import ValidatedModel, Validation

# What was validated, and with which result.
VALIDATES = "mergefront:validates"
RESULT = "mergefront:validation"


def record(validation: Validation, study: optuna.Study, spec: StudySpec) -> optuna.Study:
    """Write a validation as the study `NAME.SPLIT`; what it has already is not added again.

    Each model is a COMPLETE trial with the parameters of the search's trial, whose number is its
    attribute `trial`, and with its per-question table as an artifact. optuna-dashboard
    shows the study like any other.

    Args:
        validation: Of the study's front.
        study: The search.
        spec: Of the search.
    """
    origin = {"study": study.study_name, "fingerprint": fingerprint_of(study)}
    written = _open(study, validation.split, origin)
    known = {trial.user_attrs["trial"] for trial in written.get_trials(deepcopy=False)}
    for model in validation.models:
        if model.number not in known:
            _add(written, model, spec)
    written.set_user_attr(RESULT, validation.to_json())
    return written


def last_validation(study: optuna.Study, split: str) -> dict[str, Any] | None:
    """Return the newest validation of a study on a split; None if there is none."""
    name = f"{study.study_name}.{split}"
    if name not in optuna.get_all_study_names(study._storage):
        return None
    attributes = optuna.load_study(study_name=name, storage=study._storage).user_attrs
    if attributes.get(VALIDATES, {}).get("fingerprint") != fingerprint_of(study):
        return None
    return attributes.get(RESULT)


def _open(study: optuna.Study, split: str, origin: dict[str, str]) -> optuna.Study:
    """Open the study, anew if it belongs to a search that was made with other settings."""
    name, storage = f"{study.study_name}.{split}", study._storage
    if name in optuna.get_all_study_names(storage):
        known = optuna.load_study(study_name=name, storage=storage)
        if known.user_attrs.get(VALIDATES) == origin:
            return known
        optuna.delete_study(study_name=name, storage=storage)
    created = optuna.create_study(study_name=name, storage=storage, directions=study.directions)
    created.set_metric_names(study.metric_names or [])
    created.set_user_attr(VALIDATES, origin)
    return created


def _add(study: optuna.Study, model: ValidatedModel, spec: StudySpec) -> None:
    measurement = model.measurement
    attributes = {
        "trial": model.number,
        "label": model.label,
        "phase": model.trial.user_attrs.get("phase", ""),
        **measurement.attributes(),
    }
    name = f"trial-{model.number:05d}.answers.jsonl"
    table = answer_table(measurement.answers)
    trial = create_trial(
        state=TrialState.COMPLETE,
        values=list(measurement.values),
        params=model.trial.params,
        distributions=model.trial.distributions,
        user_attrs=attributes,
        system_attrs=store_artifact(artifact_store(spec), study.study_name, name, table),
        constraints={key: value for key, (value, _) in measurement.constraints.items()},
    )
    study.add_trial(trial)
