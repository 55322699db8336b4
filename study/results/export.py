"""Turn a trial into a checkpoint that anybody can load."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import optuna
import torch
from optuna.trial import FrozenTrial

from ...errors import SpecError, StudyError
from ...objectives.checkpoints import Checkpoint
from ...objectives.checkpoints.card import Provenance, model_card, recipe_yaml
from ...objectives.merging import Recipe, mergekit_yaml, write_checkpoint
from ..spec.hashing import cached_hash
from ..spec.inputs import StudyInputs
from .beside import whole_directory
from .recommendations import PHASE


def export_trial(inputs: StudyInputs, study: optuna.Study, number: int, out: Path) -> None:
    """Write a trial's model: safetensors, tokenizer, config, model card and recipe.

    It generates the same tokens as the candidate that was measured in place, because the same
    function merges both.

    Raises:
        StudyError: If the trial does not exist or lacks a parameter.
        SpecError: If `out` exists and is not empty.
    """
    export_candidate(inputs, study, trial_of(study, number), out)


def export_candidate(
    inputs: StudyInputs, study: optuna.Study, trial: FrozenTrial, out: Path
) -> None:
    """Write the model of a trial, or of a recommendation as a trial; see `export_trial`.

    Raises:
        StudyError: If the trial lacks a parameter.
        SpecError: If `out` exists and is not empty.
    """
    groups = inputs.plan.group_weights(trial.params)
    is_new = trial.user_attrs.get("phase") == PHASE
    who = trial.user_attrs["label"] if is_new else f"trial {trial.number}"
    title = f"{study.study_name}, {who}"
    _write(inputs, groups, _provenance(inputs, groups, title, None if is_new else trial), out)


def export_mergekit(inputs: StudyInputs, trial: FrozenTrial, out: Path) -> Path:
    """Write `mergekit.yaml` with which mergekit makes a trial's model; return its path.

    Raises:
        SpecError: If `out` is not empty, or mergekit cannot make the model.
    """
    models = [str(checkpoint.directory) for checkpoint in (inputs.base, *inputs.experts)]
    groups = inputs.plan.group_weights(trial.params)
    text = mergekit_yaml(inputs.plan, groups, models, inputs.spec.models.dtype)
    with whole_directory(out) as beside:
        (beside / "mergekit.yaml").write_text(text, encoding="utf-8")
    return out / "mergekit.yaml"


def merge_weights(
    inputs: StudyInputs, weights: Path | Mapping[str, float | list[float]], out: Path
) -> None:
    """Write the merge with given weights, or those of a JSON file.

    Raises:
        SpecError: If the file is no JSON object of numbers, or `out` is not empty.
        LayoutError: If a weight is missing or unknown.
    """
    content = _read_weights(weights) if isinstance(weights, Path) else weights
    groups = inputs.plan.parse_weights(content)
    title = f"Merge with {weights.name if isinstance(weights, Path) else 'given weights'}"
    _write(inputs, groups, _provenance(inputs, groups, title), out)


def _write(
    inputs: StudyInputs,
    groups: Mapping[str, Sequence[float]],
    provenance: Provenance,
    out: Path,
) -> None:
    """Write a checkpoint with its card and recipe, all of it or nothing."""
    with whole_directory(out) as beside:
        write_checkpoint(recipe_of(inputs), groups, beside)
        _write_texts(provenance, beside)


def _read_weights(path: Path) -> dict[str, float | list[float]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"--weights must be a JSON file, but {path} is not readable as one: {error}."
        ) from error
    if not isinstance(content, dict):
        raise SpecError(
            f'--weights must hold an object such as {{"layer_000": 0.4}}, but {path} does not.'
        )
    return content


def _write_texts(provenance: Provenance, out: Path) -> None:
    (out / "recipe.yaml").write_text(recipe_yaml(provenance), encoding="utf-8")
    (out / "README.md").write_text(model_card(provenance), encoding="utf-8")


def recipe_of(inputs: StudyInputs) -> Recipe:
    """Return the sources and rules of a study's merges."""
    dtype: torch.dtype = getattr(torch, inputs.spec.models.dtype)
    return Recipe(inputs.base, inputs.experts, inputs.plan, dtype)


def trial_of(study: optuna.Study, number: int) -> FrozenTrial:
    """Return a trial by its number.

    Raises:
        StudyError: If there is none.
    """
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise StudyError(
            f"--trial must be a trial's number, 0 to {len(trials) - 1}, but got {number}. "
            "`mergefront front` lists the best."
        )
    return trials[number]


def _provenance(
    inputs: StudyInputs,
    groups: Mapping[str, Sequence[float]],
    title: str,
    trial: FrozenTrial | None = None,
) -> Provenance:
    spec = inputs.spec
    roles = ["base", *(f"expert {k}" for k in range(1, len(inputs.experts) + 1))]
    parents = zip(roles, (inputs.base, *inputs.experts), strict=True)
    single = len(inputs.experts) == 1
    n_questions = trial.user_attrs.get("n_questions") if trial else None
    return Provenance(
        title=title,
        parents={role: _parent(checkpoint) for role, checkpoint in parents},
        operator=spec.merge.operator,
        dtype=spec.models.dtype,
        weights={g: w[0] if single else list(w) for g, w in groups.items()},
        settings={
            **spec.merge.model_dump(mode="json", exclude={"operator", "bounds"}),
            "blocks": list(inputs.plan.settings.blocks),
        },
        scores=_scores(trial, spec.metric_names) if trial else {},
        measured_on=f"{n_questions} questions of the search split",
    )


def _scores(trial: FrozenTrial, metric_names: Sequence[str]) -> dict[str, tuple[float, float]]:
    errors = trial.user_attrs.get("standard_errors")
    if trial.values is None or errors is None:
        return {}
    return dict(zip(metric_names, zip(trial.values, errors, strict=True), strict=True))


def _parent(checkpoint: Checkpoint) -> dict[str, str]:
    return {"name": checkpoint.directory.name, "hash": cached_hash(checkpoint)}
