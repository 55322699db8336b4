"""All that is needed to make a published model again, byte by byte, and to measure it again."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ...._version import __version__
from ....errors import SpecError
from ....objectives.merging.settings import arm_name, is_choice
from ...seeding import FINGERPRINT, canonical
from ...spec.inputs import StudyInputs
from ...spec.mistakes import explain
from .portable import portable_spec

NAME = "manifest.json"
_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "optuna")
# Bytes read at a time.
_CHUNK = 1 << 22


class Manifest(BaseModel):
    """What `reproduce` reads of a manifest.

    `params` are numbers, and texts that name the arm and precisions.
    """

    model_config = ConfigDict(extra="allow")

    spec: dict[str, Any]
    params: dict[str, float | str]
    values: dict[str, float] = Field(default_factory=dict)
    standard_errors: list[float] | None = None
    fingerprint: dict[str, Any]
    files: dict[str, str]

    @field_validator("params")
    @classmethod
    def _only_choices_are_texts(cls, params: dict[str, float | str]) -> dict[str, float | str]:
        texts = {name for name, value in params.items() if isinstance(value, str)}
        if wrong := sorted(name for name in texts if not is_choice(name)):
            raise ValueError(f"{wrong[0]} must be a number, but got {params[wrong[0]]!r}")
        return params


def manifest_of(
    inputs: StudyInputs, study: optuna.Study, trial: FrozenTrial, folder: Path
) -> dict[str, Any]:
    """Return the manifest of a trial's exported model.

    Spec, parameters and fingerprint are the whole study's, also where an arm leaves experts out:
    numbers of experts, in weights and in metrics, then mean what they mean in the study.

    Args:
        inputs: What the study was made of.
        study: Of the trial.
        trial: The published one.
        folder: With the exported model.
    """
    arm, precision = arm_name(trial.params), inputs.spec.merge.precision_of(trial.params)
    return {
        "mergefront": __version__,
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "study": study.study_name,
        "trial": trial.number,
        **({"arm": arm} if arm else {}),
        **({"precision": precision} if precision else {}),
        "params": trial.params,
        "values": dict(zip(inputs.spec.metric_names, trial.values or (), strict=False)),
        "standard_errors": trial.user_attrs.get("standard_errors"),
        "spec": portable_spec(inputs),
        # Hashes of the parents' weights and of the questions are in it.
        "fingerprint": study.user_attrs[FINGERPRINT],
        "files": weights_of(folder),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def weights_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of weights in a folder, by name."""
    return {path.name: _hash(path) for path in sorted(folder.glob("*.safetensors"))}


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest, or that of a folder.

    Raises:
        SpecError: If it is none.
    """
    path = path / NAME if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(
            f"A manifest must be the {NAME} of a published model, but {path} is not readable as "
            f"one: {error}."
        ) from error
    try:
        return Manifest.model_validate(content).model_dump()
    except ValidationError as error:
        raise SpecError(f"{path} is no manifest: {explain(error, Manifest)}") from None


def check_same(manifest: dict[str, Any], inputs: StudyInputs, parts: tuple[str, ...]) -> None:
    """Check that what is here is what the manifest's model was made of, and measured on.

    Args:
        manifest: From `read_manifest`.
        inputs: Of this machine.
        parts: How the keys begin that are compared: `models.`, `merge.`, `evaluation.tasks`.

    Raises:
        SpecError: With what differs.
    """
    ours = canonical(json.loads(json.dumps(inputs.fingerprint())), len(inputs.experts))
    told = manifest["fingerprint"]
    theirs = canonical(told, len(told.get("models.experts", inputs.experts)))
    keys = [key for key in theirs if key.startswith(parts)]
    differing = [key for key in keys if ours.get(key) != theirs[key]]
    if differing:
        raise SpecError(
            f"What is here is not what the model was published with: {', '.join(differing)} "
            "differ from the manifest. Give the same parents by `--model NAME=DIR` and the same "
            "questions by `--questions DIR`, or both in a spec by `--spec`."
        )
