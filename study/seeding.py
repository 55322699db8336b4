"""Create a study: its settings as attributes, parents and uniform merges as its first trials."""

import hashlib
import json
from collections.abc import Mapping

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from ..errors import StudyError
from ..objectives.merging import MergePlan
from ..samplers import uniform_levels
from .inputs import Inputs
from .spec import StudySpec
from .storage import check_storage, open_storage, shown_url, study_lock

FINGERPRINT = "mergefront:fingerprint"
IMPORTANCE = "mergefront:importance"
SPEC = "mergefront:spec"


def init_study(inputs: Inputs) -> optuna.Study:
    """Create the study and queue its first trials, or open it if it is the same study.

    Raises:
        StudyError: If a study of this name was made with other models, tasks or settings.
    """
    check_storage(inputs.spec.study.storage)
    with study_lock(inputs.spec).hold():
        storage = open_storage(inputs.spec.study.storage)
        study = optuna.create_study(
            study_name=inputs.spec.study.name,
            storage=storage,
            directions=inputs.spec.directions,
            load_if_exists=True,
        )
        if FINGERPRINT in study.user_attrs:
            check_same_study(study, inputs)
            return study
        _set_attributes(study, inputs)
    return study


def _set_attributes(study: optuna.Study, inputs: Inputs) -> None:
    """Write everything; the fingerprint last, as the mark that nothing is missing."""
    study.set_metric_names(inputs.spec.metric_names)
    content = inputs.spec.model_dump(mode="json")
    content["study"]["storage"] = shown_url(inputs.spec.study.storage)
    study.set_user_attr(SPEC, content)
    study.set_user_attr(IMPORTANCE, inputs.importance())
    for trial in study.get_trials(deepcopy=False):  # left by a start that was cut off
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    queue_seeds(study, inputs.spec, inputs.plan)
    study.set_user_attr(FINGERPRINT, inputs.fingerprint())


def check_same_study(study: optuna.Study, inputs: Inputs) -> None:
    """Check that a study was made of the same models, tasks and settings.

    Raises:
        StudyError: With the differing fields and both values.
    """
    stored, ours = study.user_attrs[FINGERPRINT], json.loads(json.dumps(inputs.fingerprint()))
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
    return {name: FloatDistribution(*spec.merge.bounds) for name in plan.parameter_names}


def queue_seeds(study: optuna.Study, spec: StudySpec, plan: MergePlan) -> None:
    """Queue the parents, then uniform merges at levels spread over the bounds."""
    n_experts = plan.settings.n_experts
    _queue(study, spec, plan.uniform(0.0), "parent", "base")
    for expert in range(1, n_experts + 1):
        label = "expert" if n_experts == 1 else f"expert {expert}"
        _queue(study, spec, plan.expert(expert), "parent", label)
    n_uniform = min(spec.sampler.n_startup_trials, spec.study.trials) - n_experts - 1
    low, high = spec.merge.bounds
    for level in uniform_levels(n_uniform + 2)[2:] if n_uniform > 0 else []:
        weight = low + level * (high - low)
        _queue(study, spec, plan.uniform(weight), "uniform", f"uniform {weight:.2f}")


def _queue(
    study: optuna.Study, spec: StudySpec, params: Mapping[str, float], phase: str, label: str
) -> None:
    """Queue one trial; where bounds leave a parent out, its own distribution reaches to it."""
    low, high = spec.merge.bounds
    values = params.values()
    distribution = FloatDistribution(min(low, *values), max(high, *values))
    trial = create_trial(
        state=TrialState.WAITING,
        params=dict(params),
        distributions=dict.fromkeys(params, distribution),
        user_attrs={"phase": phase, "label": label},
    )
    study.add_trial(trial)
