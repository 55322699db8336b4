"""StudySpec: everything a study is defined by, read from YAML and checked as a whole."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from ..errors import SpecError
from ..objectives.evaluation import METRICS, SCORERS, SPLITS, TaskSource
from ..objectives.evaluation.tasks import Split
from ..objectives.merging import OPERATORS, EdgeRule, Granularity, MergeSettings
from ..objectives.merging.operators import check_operator

Preset = Literal["mergefront", "qnehvi", "gp", "tpe", "nsga2", "random"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Density = Annotated[float, Field(gt=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StudySection(_Section):
    """Where the study lives and how long it runs.

    Args:
        name: Unique in its storage.
        storage: SQLAlchemy URL; a relative SQLite path is relative to the working directory.
        trials: COMPLETE trials at the end.
        seed: Of the sampler.
        heartbeat_seconds: Between a worker's signs of life.
        grace_seconds: Silence after which a worker on another machine is taken for dead, and its
            trial queued again; at least twice the heartbeat.
    """

    name: str = Field(min_length=1, pattern=r"^[\w.-]+$")
    storage: str = Field(pattern=r"^\w+(\+\w+)?://")
    trials: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    heartbeat_seconds: float = Field(default=20.0, gt=0)
    grace_seconds: float = Field(default=120.0, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.grace_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                "grace_seconds must be at least twice heartbeat_seconds, but got "
                f"{self.grace_seconds:g} and {self.heartbeat_seconds:g}"
            )
        return self


class ModelsSection(_Section):
    """The parents: paths, relative to the spec's folder, or hub ids."""

    base: str
    experts: list[str] = Field(min_length=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"


class MergeSection(_Section):
    """How candidates are parametrised; see `MergeSettings`."""

    operator: str = "linear"
    granularity: Granularity = "layer"
    bounds: tuple[float, float] = (0.0, 1.0)
    embeddings: EdgeRule = "merge"
    head: EdgeRule = "merge"
    density: Density | dict[str, Density] = 1.0
    parameters: dict[str, float] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    n_blocks: int = Field(default=6, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_choice("operator", self.operator, list(OPERATORS))
        low, high = self.bounds
        if not low < high:
            raise ValueError(
                f"bounds must be [low, high] with low < high, but got [{low:g}, {high:g}]; write "
                f"[{high:g}, {low:g}]"
                if low > high
                else f"bounds [{low:g}, {high:g}] are empty"
            )
        return self

    def settings(self, n_experts: int, blocks: tuple[int, ...] = ()) -> MergeSettings:
        """Return what the merge plan needs; `blocks` holds the first layer of each block."""
        return MergeSettings(
            operator=self.operator,
            granularity=self.granularity,
            embeddings=self.embeddings,
            head=self.head,
            n_experts=n_experts,
            density=self.density,
            parameters=self.parameters,
            seed=self.seed,
            blocks=blocks,
        )

    @property
    def densities(self) -> list[float]:
        """All densities that occur."""
        return list(self.density.values()) if isinstance(self.density, dict) else [self.density]


class ImportanceSection(_Section):
    """Prior knowledge about the layers; see `SIPSampler`."""

    kind: Literal["none", "parameter"] = "parameter"
    trust: Literal["learned"] | Fraction = "learned"


class ObjectiveSection(_Section):
    """One objective.

    Args:
        metric: Its direction, unit and standard error come with it.
        reference: The worst value that is still worth something; by default a tenth of the
            parents' range beyond the worse parent.
    """

    metric: str
    reference: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_choice("metric", self.metric, list(METRICS))
        return self


class TaskSection(_Section):
    """One task in JSON lines: `files`, one a split, or one `path` cut by `evaluation.splits`."""

    name: str = Field(min_length=1)
    files: dict[Split, str] = Field(default_factory=dict)
    path: str | None = None
    prompt: str = "{prompt}"
    answer: str = "answer"
    scorer: str = "exact_match"

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_choice("scorer", self.scorer, list(SCORERS))
        if bool(self.files) == (self.path is not None):
            raise ValueError("a task needs either `files`, one a split, or one `path`")
        if self.files and "search" not in self.files:
            raise ValueError("`files` must name a file for the split 'search'")
        return self

    def source(self, folder: Path, fractions: dict[Split, float]) -> TaskSource:
        """Return the task with its paths relative to `folder` resolved."""
        files = {split: _resolve(folder, path) for split, path in self.files.items()}
        path = None if self.path is None else _resolve(folder, self.path)
        return TaskSource(self.name, files, path, self.prompt, self.answer, self.scorer, fractions)


def _default_splits() -> dict[Split, Fraction]:
    return {"search": 0.6, "validation": 0.4}


class EngineSection(_Section):
    """How vLLM is started; see `EngineSettings`."""

    tensor_parallel_size: int = Field(default=1, ge=1)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_model_len: int | None = Field(default=None, ge=1)
    max_num_seqs: int = Field(default=256, ge=1)


class EvaluationSection(_Section):
    """How candidates are measured."""

    backend: Literal["transformers", "vllm"] = "transformers"
    engine: EngineSection = Field(default_factory=EngineSection)
    tasks: list[TaskSection] = Field(min_length=1)
    max_new_tokens: int = Field(default=256, ge=1)
    batch_size: int = Field(default=64, ge=1)
    splits: dict[Split, Fraction] = Field(default_factory=_default_splits)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if sum(self.splits.values()) > 1 + 1e-9:
            raise ValueError(
                f"the fractions of `splits` must add up to 1 at most, but got {self.splits}"
            )
        if not self.splits.get("search"):
            raise ValueError("`splits` must give the split 'search' a fraction above 0")
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"tasks must have different names, but got {names}")
        return self


class SamplerSection(_Section):
    """Who proposes candidates.

    Args:
        preset: `mergefront` is SIPSampler; `qnehvi` the same without prior knowledge of layers;
            the others are Optuna's own.
        n_startup_trials: Parents and uniform merges, before anything is proposed.
    """

    preset: Preset = "mergefront"
    n_startup_trials: int = Field(default=8, ge=2)


class StudySpec(_Section):
    """A whole study.

    Example::

        spec = StudySpec.from_yaml("examples/demo.yaml")

    Args:
        folder: What relative paths are relative to: the directory of the YAML file.
    """

    study: StudySection
    models: ModelsSection
    merge: MergeSection = Field(default_factory=MergeSection)
    importance: ImportanceSection = Field(default_factory=ImportanceSection)
    objectives: list[ObjectiveSection] = Field(min_length=1)
    evaluation: EvaluationSection
    sampler: SamplerSection = Field(default_factory=SamplerSection)
    folder: Path = Field(default=Path("."), exclude=True)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [objective.metric for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"objectives must be different metrics, but got {names}")
        operator = OPERATORS[self.merge.operator]
        n_experts = len(self.models.experts)
        check_operator(operator, n_experts, self.merge.parameters, self.merge.densities)
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a spec.

        Raises:
            SpecError: With one line that names the key, the value and the rule.
        """
        path = Path(path)
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SpecError(
                f"A spec must be a readable YAML file, but {path}: {error.strerror}."
            ) from error
        except yaml.YAMLError as error:
            problem = " ".join(str(error).split())
            raise SpecError(f"A spec must be valid YAML, but {path} is not: {problem}.") from error
        if not isinstance(content, dict):
            raise SpecError(f"A spec must be a YAML mapping, but {path} holds {content!r:.40}.")
        return cls.parse(content, folder=path.parent, origin=str(path))

    @classmethod
    def parse(cls, content: dict[str, Any], folder: Path, origin: str = "spec") -> Self:
        """Validate a mapping; relative paths in it are relative to `folder`.

        Raises:
            SpecError: With one line that names the key, the value and the rule.
        """
        try:
            return cls.model_validate({**content, "folder": folder})
        except ValidationError as error:
            raise SpecError(f"{origin}: {_explain(error)}") from None

    def with_overrides(self, storage: str | None = None, trials: int | None = None) -> Self:
        """Return the spec with the command line's storage and number of trials."""
        given = {"storage": storage, "trials": trials}
        changed = {key: value for key, value in given.items() if value is not None}
        content = self.model_dump(mode="json")
        content["study"] |= changed
        return self.parse(content, self.folder, "command line")

    @property
    def metric_names(self) -> list[str]:
        """The objectives in order."""
        return [objective.metric for objective in self.objectives]

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """The objectives' directions in order."""
        return [METRICS[name].direction for name in self.metric_names]


def _resolve(folder: Path, path: str) -> Path:
    """Return a path relative to the spec's folder, or to the working directory if it is there."""
    inside = folder / Path(path).expanduser()
    return Path(path) if not inside.exists() and Path(path).exists() else inside


def _check_choice(key: str, value: str, choices: list[str]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(value, choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{key} must be one of {', '.join(choices)}, but got {value!r}{hint}")


def _explain(error: ValidationError) -> str:
    """Return the first of pydantic's complaints as one line, and how many more there are."""
    details = error.errors(include_url=False)
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return _explain_one(details[0]) + more


def _explain_one(detail: ErrorDetails) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = _known_keys(detail["loc"][:-1])
        near = difflib.get_close_matches(str(detail["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
        return f"unknown key {place!r}; {hint}"
    if detail["type"] == "missing":
        return f"{place!r} is missing; add it."
    message = detail["msg"].removeprefix("Value error, ").removesuffix(".")
    shown = "" if detail["type"] == "value_error" else f", but got {detail['input']!r:.60}"
    return f"{place + ': ' if place else ''}{message}{shown}."


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the section at `location`, found by walking the models' annotations."""
    model: Any = StudySpec
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = next((a for a in getattr(annotation, "__args__", ()) if _is_model(a)), annotation)
        if not _is_model(model):
            return list(SPLITS)
    return [key for key in model.model_fields if key != "folder"]


def _is_model(candidate: object) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
