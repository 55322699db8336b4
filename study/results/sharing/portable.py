"""A spec that says nothing of its author's machine, and the way back on another machine."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ....errors import SpecError
from ....objectives.checkpoints import resolve_model
from ....objectives.checkpoints.hub import public_name
from ...spec.base import map_files, resolve
from ...spec.hashing import known_folder
from ...spec.inputs import Resolve, StudyInputs
from ...spec.study_spec import StudySpec

# What export writes beside the model, if the chat template is not the base's.
_TEMPLATE = "chat_template.jinja"


def portable_spec(inputs: StudyInputs) -> dict[str, Any]:
    """Return a spec with hub ids and names in place of paths, and without its database.

    Args:
        inputs: What a study was made of.
    """
    spec, folder = inputs.spec.model_dump(mode="json"), inputs.spec.folder
    spec["study"]["storage"] = f"sqlite:///{inputs.spec.study.name}.db"
    spec["evaluation"]["cache"] = bool(inputs.spec.evaluation.cache)
    base, *experts = _model_names(inputs)
    spec["models"] |= {"base": base, "experts": experts}
    if not isinstance(spec["models"]["stop_tokens"], list):
        spec["models"]["stop_tokens"] = list(inputs.stop_tokens)
    if inputs.chat_template is not None:
        spec["models"]["chat_template"] = _TEMPLATE
        spec["evaluation"]["chat"]["template"] = None
    # Places of earlier studies, passwords of their databases among them; nothing is learned again.
    spec["sampler"]["warm_start"] = []
    if spec["importance"]["path"]:
        spec["importance"]["path"] = Path(spec["importance"]["path"]).name
    names: dict[Path, str] = {}
    for task in spec["evaluation"]["tasks"]:
        map_files(task, partial(_file_name, task["name"], folder, names))
        if ".py:" in task.get("scorer", ""):  # a file of one's own
            task["scorer"] = re.split(r"[/\\]", task["scorer"])[-1]
    return spec


def _model_names(inputs: StudyInputs) -> list[str]:
    """Return hub ids with commits, and the names of local folders, all of them different."""
    names: list[str] = []
    for checkpoint in (inputs.base, *inputs.experts):
        name = public_name(checkpoint.directory) or checkpoint.directory.name
        same = sum(other.split("#")[0] == name for other in names)
        names.append(f"{name}#{same + 1}" if same else name)
    return names


def _file_name(task: str, folder: Path, names: dict[Path, str], path: str) -> str:
    """Return a file's name alone; with its task's before it where several files share one."""
    found = resolve(folder, path)
    if not found.exists():  # a name of lm-eval or of the hub
        return path
    place = found.resolve()
    taken = {name for other, name in names.items() if other != place}
    name = f"{task}.{place.name}" if place.name in taken else place.name
    while name in taken:
        name = f"{task}.{name}"
    return names.setdefault(place, name)


def here(content: Mapping[str, Any], folder: Path, questions: Path | None) -> StudySpec:
    """Return the spec of a manifest on this machine.

    Args:
        content: Of the manifest.
        folder: Where it lies.
        questions: Where the files of questions lie. Defaults to None: beside the manifest.

    Raises:
        SpecError: If it is no valid spec.
    """
    spec = dict(content["spec"])
    tasks = [dict(task) for task in (spec.get("evaluation") or {}).get("tasks") or ()]
    for task in tasks:
        map_files(task, lambda path: str(_inside(questions or folder, path)))
    if tasks:
        spec["evaluation"] = {**spec["evaluation"], "tasks": tasks}
    return StudySpec.parse(spec, folder, "the manifest's spec")


def _inside(folder: Path, path: str) -> Path | str:
    inside = folder / path
    return inside.absolute() if inside.exists() else path


def parent_finder(content: Mapping[str, Any], given: Mapping[str, Path]) -> Resolve:
    """Return what finds a manifest's parents: as given, by their hash, or by their name.

    Args:
        content: Of the manifest.
        given: Folders by the parents' names in the manifest.

    Raises:
        SpecError: If `given` names no parent, or no folder.
    """
    models, prints = content["spec"].get("models") or {}, content["fingerprint"]
    names = [models.get("base", ""), *models.get("experts", ())]
    hashes = [prints.get("models.base", ""), *prints.get("models.experts", ())]
    known = dict(zip(names, hashes, strict=False))
    _check_given(given, names)

    def find(reference: str, folder: Path) -> Path:
        if reference in given:
            return given[reference].resolve()
        if (found := known_folder(known.get(reference, ""))) is not None:
            return found
        try:
            return resolve_model(reference, folder)
        except SpecError as error:
            raise SpecError(
                f"The parent {reference!r} is not known on this machine. Give its folder by "
                f"`--model {reference}=DIR`: the manifest knows its weights by their hash."
            ) from error

    return find


def _check_given(given: Mapping[str, Path], names: list[str]) -> None:
    for name, path in given.items():
        if name not in names:
            raise SpecError(
                f"--model must be NAME=DIR with one of {', '.join(names)}, but got {name!r}."
            )
        if not path.is_dir():
            raise SpecError(f"--model {name} must be a model's folder, but {path} is none.")
