"""Create a study: its settings as attributes, its first trials queued."""

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from ..errors import StudyError
from ..objectives.checkpoints.configs import config_hash, stop_tokens
from ..objectives.evaluation.backends.vllm_swap.version import check_version
from ..objectives.merging import MergePlan
from ..objectives.merging.settings import other_than_default
from ..samplers import has_sources, keep
from .first_trials import first_trials
from .importance import check_importance, compute_importance
from .opening import with_stored_blocks
from .readiness import check_ready
from .spec.dialogue import CUT
from .spec.inputs import StudyInputs
from .spec.study_spec import StudySpec
from .storage.connection import (
    check_storage,
    foreign,
    open_storage,
    shown_url,
    sqlite_path,
    study_lock,
)
from .storage.identity import CREATED, FINGERPRINT, was_cut_off
from .storage.ledger import Ending, Ledger
from .warm_start import shown_reference, sources_of

__all__ = [
    "FINGERPRINT",
    "FOLDER",
    "IMPORTANCE",
    "SPEC",
    "check_same_study",
    "created",
    "fingerprint_of",
    "importance_of",
    "init_study",
    "queue_seeds",
]

logger = logging.getLogger(__name__)

IMPORTANCE = "mergefront:importance"
SPEC = "mergefront:spec"
# What relative paths of the spec are relative to, on the machine that created the study.
FOLDER = "mergefront:folder"
# What the dry run warned of, for whoever reads the results.
WARNING = "mergefront:warning"
# Measured trials at the end, as last asked for; absent while it is the spec's.
BUDGET = "mergefront:trials"


# Fields of the fingerprint that models are read for.
_CHOOSE, _EXPERTS = "models.choose", "models.experts"
_WEIGHTS = {"models.base", _EXPERTS, "models.tokenizer", "models.config"}
# Characters of a value that are shown, and of them before the first that differs.
_SHOWN, _BEFORE = 60, 20


def init_study(inputs: StudyInputs, queue: bool = True) -> optuna.Study:
    """Create the study and queue its first trials, or open it if it is the same study.

    Args:
        inputs: A valid spec with its models and tasks.
        queue: Whether the first trials are queued.

    Raises:
        MissingExtraError: If its workers could not run for want of a package.
        StudyError: If a study of this name was made with other models, tasks or settings, or by
            another tool.
        SpecError: If its models cannot be asked its questions, or merged by its operator.
    """
    spec = inputs.spec
    check_ready(inputs)
    check_extras(spec)
    path = sqlite_path(spec.study.storage)
    if path is not None and not path.exists():  # no file is made for sources that cannot be read
        sources_of(inputs)
    check_storage(spec.study.storage)
    with study_lock(spec).hold() as connection:
        study = _open_or_begin(inputs, open_storage(spec.study.storage))
        if FINGERPRINT not in study.user_attrs:
            _set_attributes(study, inputs)
            _complete(connection, study, inputs, queue)
        check_same_study(study, inputs)
        if not has_sources(study):  # new, or named after the study had begun
            keep(study, sources_of(inputs))
    return study


def created(inputs: StudyInputs) -> StudyInputs:
    """Create the study, or open it, as `init_study` does; return what it is made of.

    That is what was given, unless its blocks were measured, and another process has meanwhile
    created the study with its own.

    Raises:
        MissingExtraError, StudyError, SpecError: As `init_study` does.
    """
    try:
        init_study(inputs)
    except StudyError:
        theirs = with_stored_blocks(inputs)
        if theirs is inputs:
            raise
        init_study(theirs)
        return theirs
    return inputs


def check_extras(spec: StudySpec) -> None:
    """Check that what the workers will import is installed, before a candidate is spent on it.

    Raises:
        MissingExtraError: At the first package that is missing.
    """
    if spec.evaluation.backend == "vllm":
        check_version()


def _open_or_begin(inputs: StudyInputs, storage: BaseStorage) -> optuna.Study:
    """Return the study of the spec's name; one that another tool made is left alone."""
    spec = inputs.spec
    try:
        study = optuna.load_study(study_name=spec.study.name, storage=storage)
    except KeyError:
        check_importance(inputs)
        sources_of(inputs)
        return optuna.create_study(
            study_name=spec.study.name, storage=storage, directions=spec.directions
        )
    if FINGERPRINT not in study.user_attrs and not was_cut_off(study, spec.directions):
        raise foreign(spec)
    return study


def _set_attributes(study: optuna.Study, inputs: StudyInputs) -> None:
    """Describe the study; harmless when repeated."""
    study.set_metric_names(inputs.spec.metric_names)
    content = inputs.spec.model_dump(mode="json")
    content["study"]["storage"] = shown_url(inputs.spec.study.storage)
    content["sampler"]["warm_start"] = [*map(shown_reference, inputs.spec.sampler.warm_start)]
    study.set_user_attr(SPEC, content)
    study.set_user_attr(FOLDER, str(inputs.spec.folder.absolute()))
    if inputs.greedy_warning is not None:
        study.set_user_attr(WARNING, inputs.greedy_warning)
    study.set_user_attr(IMPORTANCE, compute_importance(inputs))


def _complete(
    connection: Connection, study: optuna.Study, inputs: StudyInputs, queue: bool
) -> None:
    """Queue the first trials and mark the study as complete, in one transaction.

    Of several processes, even without a lock that holds, one alone succeeds.
    """
    mark = uuid.uuid4().hex
    ledger = Ledger(study, mark)
    trials = first_trials(inputs.spec, inputs.plan) if queue else []
    try:
        with connection.begin():
            ledger.describe(connection, {CREATED: mark, FINGERPRINT: inputs.fingerprint()})
            for trial in study.get_trials(deepcopy=False):  # left by a start that was cut off
                failed = Ending(TrialState.FAIL)
                ledger.end(connection, trial._trial_id, failed, (TrialState.WAITING,))
            for trial in trials:
                ledger.add(connection, trial)
    except IntegrityError:
        logger.info("another process created the study %r", study.study_name)


def check_same_study(study: optuna.Study, inputs: StudyInputs) -> None:
    """Check that a study was made of the same models, tasks and settings.

    Raises:
        StudyError: With the differing fields and both values.
    """
    check_same_settings(study, inputs, inputs.fingerprint())


def check_same_settings(
    study: optuna.Study, inputs: StudyInputs, settings: Mapping[str, object]
) -> None:
    """Check the same of some settings, as they stand in the fingerprint of `inputs`.

    Raises:
        StudyError: With the differing fields and both values.
    """
    n = len(inputs.experts)
    ours = canonical(json.loads(json.dumps(settings)), n)
    told = study.user_attrs[FINGERPRINT]
    # Where this one has more or fewer experts, "all of them" is another choice.
    stored = canonical({**_unsaid(inputs), **told}, len(told.get(_EXPERTS, inputs.experts)))
    if ours.keys().isdisjoint(_WEIGHTS):
        stored = {key: value for key, value in stored.items() if key not in _WEIGHTS}
    differing = [
        key for key in sorted(stored.keys() | ours.keys()) if stored.get(key) != ours.get(key)
    ]
    if differing:
        shown = "; ".join(_difference(k, stored.get(k), ours.get(k)) for k in differing)
        raise StudyError(
            f"Study {study.study_name!r} was made with other settings: {shown}. Give this one "
            "another `study.name`, or restore the settings."
        )


def _unsaid(inputs: StudyInputs) -> dict[str, object]:
    """Return what studies of earlier versions do not say: they obeyed the base's stop tokens.

    What length they read texts in, and what answers were that were cut, is taken to be what they
    are asked for.
    """
    return {
        **inputs.text_lengths(),
        CUT: inputs.settings_print()[CUT],
        "models.config": config_hash(inputs.base.directory),
        "models.stop_tokens": sorted(stop_tokens(inputs.base.directory)),
    }


def canonical(fingerprint: Mapping[str, Any], n_experts: int) -> dict[str, Any]:
    """Return a fingerprint in which operators, their parameters and experts have one spelling.

    Args:
        fingerprint: Of a study, or a part of it.
        n_experts: Of the same study.
    """
    result = dict(fingerprint)
    if chosen := result.pop(_CHOOSE, None):
        sizes = [chosen["min"], chosen["max"] or n_experts]
        result |= {} if sizes == [n_experts, n_experts] else {_CHOOSE: sizes}
    told = result.get("merge.operator")
    if isinstance(told, list):
        result["merge.operator"] = [
            {**each, "parameters": other_than_default(each["name"], each["parameters"])}
            for each in told
        ]
    elif told is not None:
        given = result.get("merge.parameters", {})
        result["merge.parameters"] = other_than_default(told, given)
    return result


def _difference(key: str, old: object, new: object) -> str:
    """Return what was and what is, around the first place where the two differ."""
    if isinstance(old, list) and isinstance(new, list) and _sorted(old) == _sorted(new):
        return f"{key} has the same entries in another order, and it decides what is proposed"
    texts = [json.dumps(value, sort_keys=True) for value in (old, new)]
    pairs = enumerate(zip(*texts, strict=False))
    differ = next((place for place, (a, b) in pairs if a != b), min(map(len, texts)))
    start = max(0, differ - _BEFORE)
    was, now = (_short(text, start) for text in texts)
    return f"{key} was {was}, is {now}"


def _sorted(entries: list[Any]) -> list[str]:
    return sorted(json.dumps(entry, sort_keys=True) for entry in entries)


def _short(text: str, start: int) -> str:
    if len(text) <= _SHOWN:
        return text
    end = start + _SHOWN
    return f"{'...' * (start > 0)}{text[start:end]}{'...' * (end < len(text))}"


def fingerprint_of(study: optuna.Study) -> str:
    """Return a short hash of the study's fingerprint, carried by every trial."""
    text = json.dumps(study.user_attrs[FINGERPRINT], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def importance_of(study: optuna.Study) -> dict[str, float] | None:
    """Return the importance that the study was created with; None if it has none."""
    return study.user_attrs.get(IMPORTANCE)


def queue_seeds(study: optuna.Study, spec: StudySpec, plan: MergePlan) -> None:
    """Queue what is measured before anything is proposed."""
    for trial in first_trials(spec, plan):
        study.add_trial(trial)
