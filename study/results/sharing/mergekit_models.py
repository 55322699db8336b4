"""How a mergekit configuration names a study's models."""

from pathlib import Path

from ....objectives.checkpoints.hub import public_name
from ....objectives.checkpoints.lora import LoraCheckpoint
from ....objectives.merging import MergekitModel
from ...spec.inputs import StudyInputs

# mergekit reads `PATH@REVISION` and `PATH+ADAPTER`: paths with these stand in a mapping.
_MARKS = "@+"

_Place = dict[str, str]


def mergekit_models(inputs: StudyInputs, whole_paths: bool) -> list[MergekitModel]:
    """Return the base and the experts, adapters with the base that they are added to.

    Args:
        inputs: Models of a study, or of an arm of it.
        whole_paths: Whether models of this machine are named by their path, or by their folder's
            name alone: paths of one machine say nothing elsewhere.
    """
    base = _place(inputs.base.directory, whole_paths)
    models = [_model(base)]
    for expert in inputs.experts:
        place = _place(expert.directory, whole_paths)
        is_adapter = isinstance(expert, LoraCheckpoint)
        models.append({"model": base, "lora": place} if is_adapter else _model(place))
    return models


def _place(directory: Path, whole_paths: bool) -> _Place:
    public = public_name(directory)
    if public and ":" not in public:
        path, _, revision = public.partition("@")
        return {"path": path, "revision": revision} if revision else {"path": path}
    # mergekit knows models of the hub, but not folders of a repository.
    return {"path": str(directory) if whole_paths else public or directory.name}


def _model(place: _Place) -> MergekitModel:
    path, revision = place["path"], place.get("revision")
    if any(mark in path for mark in _MARKS):
        return {"model": place}
    return f"{path}@{revision}" if revision else path
