"""The public Python interface: what the commands do, as functions.

`mergefront` exports these names. A study is named by what is at hand: the path of its spec, a
`StudySpec`, or the Optuna study that `run` and `load_study` return.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from ..errors import StudyError
from .opening import open_inputs
from .results.export import export_trial, merge_weights
from .results.front import FrontReport, front_report, plain_report
from .results.validation import Validation
from .results.validation import validate as validate_front
from .results.validation_study import check_validation, open_validation, record
from .run import devices_of, make_objective
from .run import run as run_inputs
from .seeding import FOLDER, SPEC, check_same_study
from .spec.inputs import StudyInputs
from .spec.study_spec import StudySpec
from .storage import connection
from .storage.artifacts import asked_of
from .workers.callbacks import Callback, Callbacks
from .workers.worker import Reporter, SilentReporter

Source = StudySpec | optuna.Study | str | Path


def load_study(spec: StudySpec | str | Path, storage: str | None = None) -> optuna.Study:
    """Load an existing study as an Optuna study; create nothing.

    Args:
        spec: The study's spec, or the path of its YAML file.
        storage: URL of the database, instead of the spec's.

    Raises:
        SpecError: If the spec is not valid.
        StudyError: If the study does not exist, or its storage cannot be opened.
    """
    return connection.load_study(_spec(spec, storage))


def run(
    spec: StudySpec | str | Path,
    *,
    storage: str | None = None,
    trials: int | None = None,
    reporter: Reporter | None = None,
    callbacks: Sequence[Callback] = (),
) -> optuna.Study:
    """Create a study, or resume it, and finish its budget in this process.

    Args:
        spec: The study's spec, or the path of its YAML file.
        storage: URL of the database, instead of the spec's.
        trials: Measured trials at the end, instead of the spec's.
        reporter: Told of every step. Defaults to None: nobody is.
        callbacks: Called with the study and each trial measured here, as Optuna's `optimize`
            calls them; those of optuna-integration log to MLflow and others.

    Returns:
        The study, with all its trials.

    Raises:
        SpecError: If the spec is not valid, or does not fit the models and tasks that it names.
        StudyError: If a study of this name has other settings, or its trials keep failing.
    """
    asked = _spec(spec, storage, trials)
    told = reporter or SilentReporter()
    if callbacks:
        told = Callbacks(told, callbacks, lambda: connection.load_study(asked))
    run_inputs(open_inputs(asked), told)
    return connection.load_study(asked)


def front(study: Source, storage: str | None = None) -> FrontReport:
    """Return the Pareto front of a study, corrected for measurement noise.

    Args:
        study: Its spec, the path of its YAML file, or the study itself. Any Optuna study does;
            one that MergeFront did not make has no anchors and no uniform merges.
        storage: URL of the database, instead of the spec's.

    Raises:
        StudyError: If the study does not exist, or no trial is finished yet.
    """
    if isinstance(study, optuna.Study) and SPEC not in study.user_attrs:
        return plain_report(study)
    opened, spec = _open(study, storage)
    return front_report(opened, spec)


def validate(
    study: Source,
    split: str = "validation",
    *,
    storage: str | None = None,
    progress: Callable[[str], None] = lambda label: None,
) -> Validation:
    """Measure the front, the parents and the uniform merges on questions the search never saw.

    The result is also written as the study `NAME.SPLIT` beside the search.

    Args:
        study: Its spec, the path of its YAML file, or the study itself.
        split: `validation` or `test`.
        storage: URL of the database, instead of the spec's.
        progress: Told the label of each model before it is measured.

    Raises:
        SpecError: If the split is not one of fresh questions, or a task has none in it.
        StudyError: If the study does not exist, has other settings or no front.
    """
    opened, spec = _open(study, storage)
    inputs = _inputs(opened, spec)
    inputs.fresh_split(split)
    report = front_report(opened, spec)
    report.check_models()
    check_validation(opened, split)
    with devices_of(spec) as devices:
        objective = make_objective(inputs, split, devices)
        try:
            validation = validate_front(report, opened, objective, split, progress, spec.aims)
        finally:
            objective.backend.close()
    asked = asked_of([*objective.questions, *objective.texts])
    record(validation, open_validation(opened, split), spec, asked)
    return validation


def export(study: Source, trial: int, out: str | Path, storage: str | None = None) -> Path:
    """Write a trial's merged model: safetensors, tokenizer, configuration, card and recipe.

    Args:
        study: Its spec, the path of its YAML file, or the study itself.
        trial: The trial's number.
        out: New or empty directory.
        storage: URL of the database, instead of the spec's.

    Returns:
        The directory.

    Raises:
        StudyError: If the trial does not exist, or the study has other settings.
        SpecError: If `out` is not empty.
    """
    opened, spec = _open(study, storage)
    export_trial(_inputs(opened, spec), opened, trial, Path(out))
    return Path(out)


def merge(
    spec: StudySpec | str | Path,
    weights: Mapping[str, Any] | str | Path,
    out: str | Path,
) -> Path:
    """Write the merge with given weights, without a study.

    Args:
        spec: Names the parents and the operator; a `StudySpec`, or the path of a YAML file.
        weights: `{"layer_000": 0.4, ...}`, `{"uniform": 0.5}`, or the path of a JSON file; with
            `operator` and `experts` where these are searched.
        out: New or empty directory.

    Returns:
        The directory.

    Raises:
        SpecError: If the weights cannot be read, or `out` is not empty.
        LayoutError: If a weight is missing or unknown.
    """
    given = Path(weights) if isinstance(weights, str) else weights
    merge_weights(open_inputs(_spec(spec)), given, Path(out))
    return Path(out)


def spec_of(study: optuna.Study) -> StudySpec:
    """Return the spec that a study was made with, in the database where the study is.

    A copy in memory, or in a journal, has the storage that its spec names.

    Raises:
        StudyError: If MergeFront did not make the study.
    """
    attributes = study.user_attrs
    if SPEC not in attributes:
        raise StudyError(
            f"Study {study.study_name!r} was not made by MergeFront, so it has no models to work "
            "with. Name a study that `mergefront run` made."
        )
    spec = StudySpec.parse(attributes[SPEC], Path(attributes.get(FOLDER, ".")), "its spec")
    return spec.with_overrides(storage=connection.url_of(study))


def _spec(
    spec: StudySpec | str | Path, storage: str | None = None, trials: int | None = None
) -> StudySpec:
    read = spec if isinstance(spec, StudySpec) else StudySpec.from_yaml(spec)
    return read.with_overrides(storage, trials)


def _open(study: Source, storage: str | None) -> tuple[optuna.Study, StudySpec]:
    if isinstance(study, optuna.Study):
        return study, spec_of(study)
    spec = _spec(study, storage)
    return connection.load_study(spec), spec


def _inputs(study: optuna.Study, spec: StudySpec) -> StudyInputs:
    if connection.url_of(study) is None:
        raise StudyError(
            f"Validations and exports need a study in a database, but {study.study_name!r} is in "
            f"{type(study._storage).__name__}. Name its spec, or copy it with `optuna.copy_study`."
        )
    inputs = open_inputs(spec)
    check_same_study(study, inputs)
    return inputs
