"""Create a study: its settings as attributes, parents and uniform merges as its first trials."""

import hashlib
import json
import logging
import uuid
from collections.abc import Mapping

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from scipy.stats.qmc import Sobol
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from ..errors import StudyError
from ..objectives.checkpoints.configs import config_hash, stop_tokens
from ..objectives.evaluation.backends.vllm_backend import check_version
from ..objectives.merging import MergePlan
from ..objectives.merging.plan import DENSITY
from ..samplers import uniform_levels
from .importance import compute_importance
from .readiness import check_ready
from .spec.inputs import StudyInputs
from .spec.study_spec import StudySpec
from .storage.connection import check_storage, foreign, open_storage, shown_url, study_lock
from .storage.identity import CREATED, FINGERPRINT
from .storage.ledger import Ending, Ledger

__all__ = [
    "FINGERPRINT",
    "FOLDER",
    "IMPORTANCE",
    "SPEC",
    "check_same_study",
    "fingerprint_of",
    "first_trials",
    "importance_of",
    "init_study",
    "is_uniform",
    "queue_seeds",
    "search_space",
]

logger = logging.getLogger(__name__)

IMPORTANCE = "mergefront:importance"
SPEC = "mergefront:spec"
# What relative paths of the spec are relative to, on the machine that created the study.
FOLDER = "mergefront:folder"
# Measured trials at the end, as last asked for; absent while it is the spec's.
BUDGET = "mergefront:trials"

Space = Mapping[str, FloatDistribution]


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
    check_storage(spec.study.storage)
    with study_lock(spec).hold() as connection:
        study = _open_or_begin(spec, open_storage(spec.study.storage))
        if FINGERPRINT not in study.user_attrs:
            _set_attributes(study, inputs)
            _complete(connection, study, inputs, queue)
    check_same_study(study, inputs)
    return study


def check_extras(spec: StudySpec) -> None:
    """Check that what the workers will import is installed, before a candidate is spent on it.

    Raises:
        MissingExtraError: At the first package that is missing.
    """
    if spec.evaluation.backend == "vllm":
        check_version()


def _open_or_begin(spec: StudySpec, storage: BaseStorage) -> optuna.Study:
    """Return the study of the spec's name; one that another tool made is left alone."""
    try:
        study = optuna.load_study(study_name=spec.study.name, storage=storage)
    except KeyError:
        return optuna.create_study(
            study_name=spec.study.name, storage=storage, directions=spec.directions
        )
    if FINGERPRINT not in study.user_attrs and not _was_cut_off(study, spec):
        raise foreign(spec)
    return study


def _was_cut_off(study: optuna.Study, spec: StudySpec) -> bool:
    """Whether a study is what `init_study` leaves that is killed: nobody worked on it."""
    directions = [direction.name.lower() for direction in study.directions]
    return (
        directions == list(spec.directions)
        and all(key.startswith("mergefront:") for key in study.user_attrs)
        and all(
            trial.state in (TrialState.WAITING, TrialState.FAIL)
            and {"phase", "label"} <= trial.user_attrs.keys()
            for trial in study.get_trials(deepcopy=False)
        )
    )


def _set_attributes(study: optuna.Study, inputs: StudyInputs) -> None:
    """Describe the study; harmless when repeated."""
    study.set_metric_names(inputs.spec.metric_names)
    content = inputs.spec.model_dump(mode="json")
    content["study"]["storage"] = shown_url(inputs.spec.study.storage)
    study.set_user_attr(SPEC, content)
    study.set_user_attr(FOLDER, str(inputs.spec.folder.absolute()))
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
    ours = json.loads(json.dumps(inputs.fingerprint()))
    stored = {**_unsaid(inputs), **study.user_attrs[FINGERPRINT]}
    differing = [
        key for key in sorted(stored.keys() | ours.keys()) if stored.get(key) != ours.get(key)
    ]
    if differing:
        shown = "; ".join(
            f"{k} was {_short(stored.get(k))}, is {_short(ours.get(k))}" for k in differing
        )
        raise StudyError(
            f"Study {study.study_name!r} was made with other settings: {shown}. Give this one "
            "another `study.name`, or restore the settings."
        )


def _unsaid(inputs: StudyInputs) -> dict[str, object]:
    """Return what studies of earlier versions do not say: they obeyed the base's stop tokens."""
    return {
        "models.config": config_hash(inputs.base.directory),
        "models.stop_tokens": sorted(stop_tokens(inputs.base.directory)),
    }


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def fingerprint_of(study: optuna.Study) -> str:
    """Return a short hash of the study's fingerprint, carried by every trial."""
    text = json.dumps(study.user_attrs[FINGERPRINT], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def importance_of(study: optuna.Study) -> dict[str, float] | None:
    """Return the importance that the study was created with; None if it has none."""
    return study.user_attrs.get(IMPORTANCE)


def search_space(spec: StudySpec, plan: MergePlan) -> dict[str, FloatDistribution]:
    """Return one distribution a parameter, within the spec's bounds."""
    ranges = plan.bounds(*spec.merge.bounds)
    return {name: FloatDistribution(*range_) for name, range_ in ranges.items()}


def queue_seeds(study: optuna.Study, spec: StudySpec, plan: MergePlan) -> None:
    """Queue what is measured before anything is proposed."""
    for trial in first_trials(spec, plan):
        study.add_trial(trial)


def first_trials(spec: StudySpec, plan: MergePlan) -> list[FrozenTrial]:
    """Return the parents, then uniform merges, Sobol points, or a grid over all parameters."""
    n_experts, space = plan.settings.n_experts, search_space(spec, plan)
    trials = [_first(space, plan.uniform(0.0), "parent", "base")]
    for expert in range(1, n_experts + 1):
        label = "expert" if n_experts == 1 else f"expert {expert}"
        trials.append(_first(space, plan.expert(expert), "parent", label))
    makers = {"uniform": _uniform_merges, "sobol": _sobol_points, "grid": _grid}
    trials += makers[spec.sampler.startup](spec, plan, space, spec.study.trials - len(trials))
    return trials


def _uniform_merges(
    spec: StudySpec, plan: MergePlan, space: Space, n_most: int
) -> list[FrozenTrial]:
    """Return uniform merges at levels spread over the bounds; the parents are the first two."""
    n = min(spec.sampler.n_startup_trials - plan.settings.n_experts - 1, n_most)
    low, high = spec.merge.bounds
    levels = uniform_levels(n + 2)[2:] if n > 0 else []
    weights = [low + level * (high - low) for level in levels]
    return [_first(space, plan.uniform(w), "uniform", f"uniform {w:.2f}") for w in weights]


def _sobol_points(
    spec: StudySpec, plan: MergePlan, space: Space, n_most: int
) -> list[FrozenTrial]:
    n = max(0, min(spec.sampler.n_startup_trials, n_most))
    engine = Sobol(len(space), rng=np.random.default_rng([43, spec.study.seed]))
    points = engine.random_base2(max(n - 1, 0).bit_length())[:n]
    return [_at(space, point, "startup", f"sobol {i}") for i, point in enumerate(points)]


def _grid(spec: StudySpec, plan: MergePlan, space: Space, n_most: int) -> list[FrozenTrial]:
    """Return `n_most` points: three levels of a density, all others of the weights' diagonal.

    Levels of the weights do not include the bounds, where the parents are.
    """
    densities = (0.0, 0.5, 1.0) if DENSITY in space else (0.0,)
    points = []
    for k, density in enumerate(densities):
        n = len(range(k, n_most, len(densities)))
        for i in range(1, n + 1):
            level = i / (n + 1)
            points.append([density if name == DENSITY else level for name in space])
    phase = "startup" if DENSITY in space else "uniform"
    return [_at(space, np.array(point), phase, "") for point in points]


def _at(space: Space, point: NDArray[np.float64], phase: str, label: str) -> FrozenTrial:
    """Return a trial at a point of the unit cube."""
    params = {
        name: round(d.low + float(x) * (d.high - d.low), 4)
        for (name, d), x in zip(space.items(), point, strict=True)
    }
    shown = ", ".join(f"{name} {value:.2f}" for name, value in params.items())
    return _first(space, params, phase, label or shown)


def _first(space: Space, params: Mapping[str, float], phase: str, label: str) -> FrozenTrial:
    """Return a waiting trial; where bounds leave a parent out, its own distributions reach to it.

    All weights have one distribution.
    """
    weights = {name: value for name, value in params.items() if name != DENSITY}
    distributions: dict[str, BaseDistribution] = {}
    for name, value in params.items():
        reach = weights.values() if name in weights else [value]
        low, high = min(space[name].low, *reach), max(space[name].high, *reach)
        distributions[name] = FloatDistribution(low, high)
    return create_trial(
        state=TrialState.WAITING,
        params=dict(params),
        distributions=distributions,
        user_attrs={"phase": phase, "label": label},
    )


def is_uniform(trial: FrozenTrial) -> bool:
    """Whether a trial is a parent or a uniform merge."""
    return trial.user_attrs.get("phase") in ("parent", "uniform")
