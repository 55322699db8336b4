"""Measured two-way merges to learn from: of finished studies, and of files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ...errors import MergefrontError, SpecError, StudyError
from ...objectives import questions_of
from ...objectives.merging import OPERATORS
from ...objectives.merging.settings import DENSITY
from ...objectives.similarity import Prompt, merge_features
from ...samplers import is_measured
from ...samplers.simmerge import Example, Merge, read_examples
from ..budget import known
from ..opening import open_inputs
from ..seeding import FOLDER, SPEC
from ..spec.base import near_hint
from ..spec.hashing import cached_hash
from ..spec.inputs import StudyInputs
from ..spec.study_spec import StudySpec
from ..storage.connection import load_study, open_storage, shown_url
from .methods import Method
from .pair_signals import pair_signals

# Uniform merges whose mean stands for the merge at equal shares.
_HALF = (0.35, 0.65)
_N_PROBES = 32


def read_source(source: str) -> tuple[list[Example], dict[str, str]]:
    """Return measured merges, and which studies have none, with the reason.

    Args:
        source: A file of examples (`.jsonl`), a study's spec, a study as `storage#study`, or the
            URL of a storage, all of whose studies are read.

    Raises:
        SpecError: If a file cannot be read.
        StudyError: If a storage cannot be opened, or has no study of the name.
    """
    if source.endswith(".jsonl"):
        return _read_file(Path(source)), {}
    found: list[Example] = []
    skipped: dict[str, str] = {}
    for name, read in _studies(source).items():
        try:
            found += study_examples(read())
        except MergefrontError as error:
            skipped[name] = str(error)
    return found, skipped


def _studies(source: str) -> dict[str, Callable[[], StudySpec]]:
    """Return name -> what reads its spec, for one study or all of a storage."""
    if "://" not in source:
        spec = StudySpec.from_yaml(source)
        return {spec.study.name: lambda: spec}
    url, _, only = source.partition("#")
    storage = open_storage(url, create=False)
    names = optuna.get_all_study_names(storage)
    if only and only not in names:
        raise StudyError(f"{shown_url(url)} has no study {only!r}{near_hint(only, names)}")
    found = {
        name: optuna.load_study(study_name=name, storage=storage).user_attrs
        for name in ([only] if only else names)
    }
    return {
        name: partial(_stored_spec, attributes, url)
        for name, attributes in found.items()
        if SPEC in attributes
    }


def _stored_spec(attributes: Mapping[str, Any], url: str) -> StudySpec:
    spec = StudySpec.parse(attributes[SPEC], Path(attributes.get(FOLDER, ".")), "its spec")
    return spec.with_overrides(storage=url)


def _read_file(path: Path) -> list[Example]:
    try:
        return read_examples(path)
    except (OSError, ValueError) as error:
        raise SpecError(f"{path} must hold measured merges, but {error}.") from error


def study_examples(spec: StudySpec) -> list[Example]:
    """Return what a finished study measured of two models' merges at equal shares.

    One expert is merged with the base, two experts with each other and the base as ancestor. The
    gain is that of the first objective, of the mean of uniform merges between .35 and .65. A study
    over operators and experts has one example for each choice that it measured so.

    Raises:
        SpecError: If the models or tasks are not there any more.
        StudyError: If the study has not been run, or measured no such merge.
    """
    study = load_study(spec)
    everything = study.get_trials(deepcopy=False)
    measured = [trial for trial in everything if is_measured(trial)]
    if len(measured) < spec.study.trials and spec.ends.reason(everything) is None:
        of = "" if (asked := known(spec.study.trials)) is None else f" of {asked}"
        raise StudyError(
            f"{len(measured)}{of} trials are measured; finish it with `mergefront run`."
        )
    if spec.merge.precision is not None:
        raise StudyError("its merges are rounded to a precision.")
    # What racing stopped early was asked fewer questions than its parents.
    trials = [trial for trial in measured if trial.state == TrialState.COMPLETE]
    merges = _halves(open_inputs(spec), trials)
    if not merges:
        raise StudyError(
            "it measured no uniform merge of two models between .35 and .65 with both of its "
            "parents, which studies of one or two experts do that start from uniform merges."
        )
    sign = 1.0 if study.directions[0] == StudyDirection.MAXIMIZE else -1.0
    return [_example(half, sign) for half in merges]


@dataclass
class _Half:
    """A merge at equal shares.

    Args:
        inputs: As of a study of it alone.
        parents: Both.
        merges: Uniform, at weights near one half.
    """

    inputs: StudyInputs
    parents: list[FrozenTrial]
    merges: list[FrozenTrial]


def _halves(inputs: StudyInputs, trials: Sequence[FrozenTrial]) -> list[_Half]:
    """Return the merges at equal shares of two models, one for each choice of what to merge.

    Experts merged one after the other are none: what comes last has the largest share.

    Raises:
        StudyError: If densities were searched.
    """
    found: dict[str, _Half] = {}
    for trial in trials:
        if trial.user_attrs.get("phase") != "uniform":
            continue
        merge, groups = inputs.at(trial.params)
        weights = {w for name, each in groups.items() if name != DENSITY for w in each}
        parents = [] if _is_chain(merge) else _parents(trials, inputs, merge)
        if len(weights) == 1 and _HALF[0] <= min(weights) <= _HALF[1] and len(parents) == 2:
            found.setdefault(merge.arm_name, _Half(merge, parents, [])).merges.append(trial)
    halves = [half for half in found.values() if isinstance(half.inputs.spec.merge.density, float)]
    if found and not halves:
        raise StudyError("its density is not one number.")
    return halves


def _is_chain(merge: StudyInputs) -> bool:
    operator = merge.spec.merge.operator
    return len(merge.experts) > 1 and OPERATORS[str(operator)].max_experts == 1


def _parents(
    trials: Sequence[FrozenTrial], inputs: StudyInputs, merge: StudyInputs
) -> list[FrozenTrial]:
    """Return the measured parents of a merge, in its order."""
    numbers = range(1, len(inputs.experts) + 1) if merge.arm is None else merge.arm.experts
    alone = len(inputs.experts) == 1
    labels = ["expert"] if alone else [f"expert {number}" for number in numbers]
    by_label = {t.user_attrs.get("label"): t for t in trials}
    wanted = ["base", *labels] if len(labels) == 1 else labels
    return [by_label[label] for label in wanted if label in by_label and len(wanted) == 2]


def _example(half: _Half, sign: float) -> Example:
    scores = [sign * trial.values[0] for trial in half.parents]
    gain = sign * fmean(trial.values[0] for trial in half.merges) - fmean(scores)
    error = sqrt(_variance_of_mean(half.merges) + _variance_of_mean(half.parents))
    tasks = ", ".join(task.name for task in half.inputs.tasks)
    return Example(_merge(half.inputs, scores), gain, error, tasks)


def _variance_of_mean(trials: Sequence[FrozenTrial]) -> float:
    """Return the variance, as if errors were independent: on the same questions it is less."""
    errors = [float(t.user_attrs.get("standard_errors", [0.0])[0]) for t in trials]
    return sum(error**2 for error in errors) / len(errors) ** 2


def _merge(inputs: StudyInputs, scores: Sequence[float]) -> Merge:
    merge = inputs.spec.merge
    assert isinstance(merge.operator, str) and isinstance(merge.density, float)  # one arm's
    method = Method(merge.operator, merge.density, merge.parameters)
    two_experts = len(inputs.experts) == 2
    pair = inputs.experts if two_experts else (inputs.base, inputs.experts[0])
    ancestor = inputs.base if two_experts else None
    named = dict(zip("ab", pair, strict=True))
    signals = pair_signals(named, ancestor, _probes(inputs), inputs.spec.models.dtype)
    is_ordered = method.is_ordered(two_experts)
    features = merge_features(signals["a", "b"], signals["b", "a"], is_ordered)
    features |= score_features(scores)
    return Merge((cached_hash(pair[0]), cached_hash(pair[1])), method.label, features)


def _probes(inputs: StudyInputs) -> list[Prompt]:
    """Return questions of the tasks, those set aside for importance if there are any.

    Texts that are read are no prompts: nobody answers them.
    """
    tasks = [task for task in inputs.tasks if not task.reads]
    asked = questions_of(tasks, "importance") or questions_of(tasks, "search")
    step = max(1, len(asked) // _N_PROBES)
    return [
        (q.question.prompt, q.sampling.chat if q.sampling else True)
        for q in asked[::step][:_N_PROBES]
    ]


def score_features(scores: Sequence[float]) -> dict[str, float]:
    """Return what the parents' own scores say of a merge's gain."""
    return {"parents.mean": fmean(scores), "parents.gap": abs(scores[0] - scores[1])}
