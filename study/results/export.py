"""Turn a trial into a checkpoint that anybody can load."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from ...errors import SpecError, StudyError
from ...objectives.checkpoints.configs import stop_tokens
from ...objectives.evaluation.tasks.lines import each_once
from ...objectives.merging import mergekit_yaml, parse_weights, write_checkpoint
from ..spec.inputs import StudyInputs
from .beside import whole_directory
from .front import front_report
from .recommendations import PHASE
from .report.front_figures import plot_front
from .sharing.card import Provenance, model_card, recipe_yaml
from .sharing.mergekit_models import mergekit_models
from .sharing.provenance import provenance_of, scores_of


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
    with whole_directory(out) as beside:
        write_candidate(inputs, study, trial, beside)


def write_candidate(
    inputs: StudyInputs, study: optuna.Study, trial: FrozenTrial, folder: Path
) -> None:
    """Write the same into a folder that is there.

    Raises:
        StudyError: If the trial lacks a parameter.
    """
    own, groups = inputs.at(trial.params)
    is_new = trial.user_attrs.get("phase") == PHASE
    who = trial.user_attrs["label"] if is_new else f"trial {trial.number}"
    title = f"{study.study_name}, {who}"
    told = trial.params if inputs.plan.arms else {}
    try:
        report = front_report(study, inputs.spec)
    except StudyError:  # nothing is measured yet
        _write(own, groups, provenance_of(own, groups, title, parameters=told), folder)
        return
    scores, picture = scores_of(study, report, trial), "front.png" if report.trials else ""
    provenance = provenance_of(own, groups, title, scores, picture, told)
    _write(own, groups, provenance, folder, plot_front(report) if picture else None)


def export_mergekit(inputs: StudyInputs, trial: FrozenTrial, out: Path) -> Path:
    """Write `mergekit.yaml` with which mergekit makes a trial's model; return its path.

    Raises:
        SpecError: If `out` is not empty, or mergekit cannot make the model.
    """
    inputs, groups = inputs.at(trial.params)
    models = mergekit_models(inputs, whole_paths=True)
    text = mergekit_yaml(inputs.plan, groups, models, inputs.spec.models.dtype)
    with whole_directory(out) as beside:
        (beside / "mergekit.yaml").write_text(text, encoding="utf-8")
    return out / "mergekit.yaml"


def merge_weights(inputs: StudyInputs, weights: Path | Mapping[str, Any], out: Path) -> None:
    """Write the merge with given weights, or those of a JSON file.

    Raises:
        SpecError: If the file is no JSON object of numbers, or `out` is not empty.
        LayoutError: If a weight is missing or unknown.
    """
    content = dict(_read_weights(weights) if isinstance(weights, Path) else weights)
    choices = inputs.plan.settings.choices
    inputs = inputs.of_arm({name: content.pop(name, None) for name in choices})
    groups = parse_weights(inputs.plan, content)
    title = f"Merge with {weights.name if isinstance(weights, Path) else 'given weights'}"
    with whole_directory(out) as beside:
        _write(inputs, groups, provenance_of(inputs, groups, title), beside)


def _write(
    inputs: StudyInputs,
    groups: Mapping[str, Sequence[float]],
    provenance: Provenance,
    folder: Path,
    picture: Figure | None = None,
) -> None:
    """Write a checkpoint with its card and recipe."""
    if picture is not None:
        picture.savefig(folder / provenance.picture, format="png")
    write_checkpoint(inputs.recipe, groups, folder)
    _write_dialogue(inputs, folder)
    _write_texts(provenance, folder)


def _write_dialogue(inputs: StudyInputs, out: Path) -> None:
    """Have the model stop and be asked as it was measured, where the base's files differ."""
    if set(inputs.stop_tokens) != stop_tokens(inputs.base.directory):
        path = out / "generation_config.json"
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        content["eos_token_id"] = sorted(inputs.stop_tokens)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if inputs.chat_template is not None:
        (out / "chat_template.jinja").write_text(inputs.chat_template, encoding="utf-8")
        # The base's for its processor, which would take this one first.
        (out / "chat_template.json").unlink(missing_ok=True)


def _read_weights(path: Path) -> dict[str, float | list[float]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=each_once)
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(
            f"--weights must be a JSON file in which every key comes once, but {path} is none: "
            f"{error}. Correct the file, or its path."
        ) from error
    if not isinstance(content, dict):
        raise SpecError(
            f'--weights must hold an object such as {{"layer_000": 0.4}}, but {path} does not.'
        )
    return content


def _write_texts(provenance: Provenance, out: Path) -> None:
    (out / "recipe.yaml").write_text(recipe_yaml(provenance), encoding="utf-8")
    (out / "README.md").write_text(model_card(provenance), encoding="utf-8")


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
