"""A catalogue of models to choose from: read, and checked model by model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from ...errors import LayoutError, SpecError
from ...objectives.checkpoints import (
    Checkpoint,
    LoraCheckpoint,
    check_mergeable,
    is_adapter,
    resolve_model,
)
from ...objectives.merging import OPERATORS
from ...objectives.merging.merger import CHUNK, check_finite
from ...objectives.merging.operators import check_operator
from ..spec.base import Section, check_choice, read_mapping
from ..spec.hashing import remembered
from ..spec.mistakes import explain
from .methods import Method


class MemberSection(Section):
    """One model.

    Args:
        path: Relative to the catalogue's folder, or a hub id.
        score: Its own on the task, larger is better; for all models or none.
    """

    path: str
    score: float | None = None


class MethodSection(Section):
    """An operator's settings.

    Args:
        density: Share of task vectors that is kept.
        parameters: Of the operator.
    """

    density: float = Field(default=1.0, gt=0, le=1)
    parameters: dict[str, float] = Field(default_factory=dict)


class CatalogueSection(Section):
    """What a catalogue's file holds.

    Args:
        models: Name -> path, or path and score; or a list of paths, named by their last part.
        ancestor: What all were fine-tuned from; task vectors are taken from it.
        dtype: Models are compared and searched in it.
        operators: Name -> settings, or a list of names and settings as in a spec. Defaults to
            None: linear, slerp, and TIES with density .5, normalized where there is an ancestor.
        max_models: That are merged into one.
        study: A spec whose `models` and `merge.operator` are replaced in the specs written.
    """

    models: dict[str, MemberSection] = Field(min_length=2)
    ancestor: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    operators: dict[str, MethodSection] | None = Field(default=None, min_length=1)
    max_models: int = Field(default=2, ge=2)
    study: str | None = None

    @field_validator("models", mode="before")
    @classmethod
    def _paths(cls, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            names = [Path(item).name for item in value]
            if len(set(names)) < len(names):
                raise ValueError("models in a list must end in different names; give them names")
            value = dict(zip(names, value, strict=True))
        if not isinstance(value, dict):
            return value
        return {k: {"path": v} if isinstance(v, str) else v for k, v in value.items()}

    @field_validator("operators", mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        if isinstance(value, list):
            named = [_named(item) for item in value]
            if len({name for name, _ in named}) < len(named):
                raise ValueError("must have different names; of one operator one setting is tried")
            return dict(named)
        return {k: v or {} for k, v in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name, section in self.chosen.items():
            check_choice("operators", name, list(OPERATORS))
            n_experts = 2 if self.ancestor and OPERATORS[name].on_deltas else 1
            check_operator(OPERATORS[name], n_experts, section.parameters, [section.density])
        scored = [name for name, member in self.models.items() if member.score is not None]
        if scored and len(scored) < len(self.models):
            missing = next(name for name in self.models if name not in scored)
            raise ValueError(f"all models must have a score or none, but {missing!r} has none")
        return self

    @property
    def chosen(self) -> dict[str, MethodSection]:
        """The operators to choose from."""
        if self.operators is not None:
            return self.operators
        # Of a single task vector's weight, normalizing would leave nothing.
        parameters = {"normalize": 1.0} if self.ancestor else {}
        ties = MethodSection(density=0.5, parameters=parameters)
        return {"linear": MethodSection(), "slerp": MethodSection(), "ties": ties}


def _named(item: Any) -> tuple[str, dict[str, Any]]:
    """Return an operator's name and settings, written as in a study's spec."""
    if isinstance(item, str):
        return item, {}
    if isinstance(item, dict) and isinstance(item.get("name"), str):
        return item["name"], {key: value for key, value in item.items() if key != "name"}
    raise ValueError(f"a list must hold names, or mappings with a `name`, but got {item!r:.60}")


@dataclass(frozen=True)
class Catalogue:
    """Models that can be merged with each other, and why others cannot.

    Args:
        models: Name -> checkpoint.
        scores: Name -> its own score; empty where none are known.
        ancestor: Of all of them.
        refused: Name -> reason.
        methods: Operators to choose from, by their labels.
        settings: As they stand in the file.
        folder: Of the file.
    """

    models: Mapping[str, Checkpoint]
    scores: Mapping[str, float]
    ancestor: Checkpoint | None
    refused: Mapping[str, str]
    methods: Mapping[str, Method]
    settings: CatalogueSection
    folder: Path


def read_catalogue(path: Path) -> Catalogue:
    """Read a catalogue and check each of its models.

    Raises:
        SpecError: If the file is invalid, the ancestor is, or fewer than two models remain.
    """
    settings = _parse(path)
    ancestor = None
    if settings.ancestor is not None:
        ancestor = Checkpoint(resolve_model(settings.ancestor, path.parent))
        _check_files(ancestor)
    found: dict[str, Checkpoint] = {}
    refused: dict[str, str] = {}
    for name, member in settings.models.items():
        try:
            found[name] = _open(member.path, path.parent, ancestor)
        except (SpecError, LayoutError) as error:
            refused[name] = str(error)
    refused |= _misfits(found, ancestor)
    models = {name: model for name, model in found.items() if name not in refused}
    if len(models) < 2:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise SpecError(f"{path} must hold two models that can be merged. Refused: {reasons}")
    scores = {
        n: m.score for n, m in settings.models.items() if n in models and m.score is not None
    }
    methods = [Method(n, s.density, s.parameters) for n, s in settings.chosen.items()]
    labelled = {method.label: method for method in methods}
    return Catalogue(models, scores, ancestor, refused, labelled, settings, path.parent)


def _parse(path: Path) -> CatalogueSection:
    content = read_mapping(path, "catalogue")
    try:
        return CatalogueSection.model_validate(content)
    except ValidationError as error:
        raise SpecError(f"{path}: {explain(error, CatalogueSection)}") from None


def _open(reference: str, folder: Path, ancestor: Checkpoint | None) -> Checkpoint:
    """Open a model whose files are all there and whose weights are finite."""
    directory = resolve_model(reference, folder)
    if is_adapter(directory):
        if ancestor is None:
            raise SpecError(f"{directory} is an adapter. Give its base as `ancestor`.")
        model: Checkpoint = LoraCheckpoint(directory, ancestor)
    else:
        model = Checkpoint(directory)
    _check_files(model)
    remembered("finite.json", model, lambda: _check_weights(model))
    return model


def _check_weights(model: Checkpoint) -> str:
    for name in model.layout:
        tensor = model.tensor(name)
        for start in range(0, tensor.numel(), CHUNK):
            check_finite(name, tensor.read(start, min(start + CHUNK, tensor.numel())))
    return "finite"


def _check_files(model: Checkpoint) -> None:
    try:
        if missing := [path for path in model.paths if not path.is_file()]:
            raise SpecError(
                f"The shard {missing[0].name} is missing in {missing[0].parent}. Fetch it again."
            )
        model.shapes()
        model.config  # noqa: B018  (read, as it is parsed when first asked for)
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError, OSError) as error:
        raise SpecError(
            f"The files in {model.directory} cannot be read ({type(error).__name__}: {error}). "
            "Fetch them again."
        ) from error


def _misfits(models: Mapping[str, Checkpoint], ancestor: Checkpoint | None) -> dict[str, str]:
    """Return why models cannot be merged with the ancestor, or with what most models fit."""
    if ancestor is not None:
        return _unlike(ancestor, models)
    found = {name: _unlike(model, models) for name, model in models.items()}
    return min(found.values(), key=len, default={})


def _unlike(reference: Checkpoint, models: Mapping[str, Checkpoint]) -> dict[str, str]:
    reasons = {}
    for name, model in models.items():
        try:
            check_mergeable(reference, [model])
        except SpecError as error:
            reasons[name] = str(error)
    return reasons
