"""StudySpec: everything a study is defined by, read from YAML and checked as a whole."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictInt, ValidationError, model_validator

from ...errors import SpecError
from ...objectives.evaluation import METRICS, Constraint, ObjectiveMetric
from ...objectives.evaluation.estimators import means
from ...objectives.evaluation.metric_table import metric_of, split_name
from ...objectives.evaluation.paired import Criterion
from ...objectives.merging import OPERATORS, EdgeRule, Granularity, MergeSettings, TowerRule
from ...objectives.merging.operators import check_operator
from ..budget import UNLIMITED, Limits
from .base import Section, check_choice, finite_number, read_mapping
from .evaluation import EvaluationSection
from .explain import explain
from .presets import fill_in
from .search import (
    BudgetSection,
    CostSection,
    ImportanceSection,
    SamplerSection,
    StopSection,
    check_end,
    check_search,
)

_CONSTRAINT = re.compile(r"^\s*([^\s<>=]+)\s*(<=|>=)\s*(\S+)\s*$")
_Name = Annotated[str, Field(min_length=1)]
Density = Annotated[float, Field(gt=0, le=1)]


class StudySection(Section):
    """Where the study is stored and how long it runs.

    Args:
        name: The study's name, unique in its storage.
        storage: SQLAlchemy URL; a relative SQLite path is relative to the working directory.
        trials: How many measured trials the study has when it is finished: COMPLETE ones, and
            PRUNED ones if there is racing or `evaluation.screen`.
        seed: Random seed of the sampler.
        heartbeat_seconds: Seconds between two heartbeats of a worker.
        grace_seconds: Seconds without a heartbeat before a worker on another machine is
            considered dead and its trial is queued again; at least twice `heartbeat_seconds`.
        budget: What the study may use, instead of `trials`.
        stop: When it ends earlier.
    """

    name: str = Field(min_length=1, max_length=120, pattern=r"^[\w.-]+$")
    storage: str = Field(pattern=r"^\w+(\+\w+)?://")
    trials: int = Field(default=UNLIMITED, ge=1)
    seed: int = Field(default=0, ge=0)
    heartbeat_seconds: float = Field(default=20.0, gt=0)
    grace_seconds: float = Field(default=120.0, gt=0)
    budget: BudgetSection | None = None
    stop: StopSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_trials(cls, content: Any) -> Any:
        """Take the trials from the budget, if that is where they are."""
        if not isinstance(content, dict) or content.get("trials") is not None:
            return content
        content = {key: value for key, value in content.items() if key != "trials"}
        budget = content.get("budget")
        if isinstance(budget, dict) and budget.get("trials") is not None:
            return {**content, "trials": budget["trials"]}
        if budget is None:
            raise ValueError(
                "a study needs `trials`, or a `budget` of trials, tokens or gpu hours"
            )
        return content

    @model_validator(mode="after")
    def _check(self) -> Self:
        told = None if self.budget is None else self.budget.trials
        if told is not None and told != self.trials:
            raise ValueError(
                f"trials is {self.trials} and budget.trials is {told}; keep one of them"
            )
        if self.grace_seconds < 2 * self.heartbeat_seconds:
            raise ValueError(
                "grace_seconds must be at least twice heartbeat_seconds, but got "
                f"{self.grace_seconds:g} and {self.heartbeat_seconds:g}"
            )
        return self


class ModelsSection(Section):
    """The parents.

    Args:
        base: The model at weight 0: a directory, relative to the spec's folder, or a hub id,
            `ORG/NAME[@REVISION][:SUBFOLDER]`.
        experts: The models at weight 1, or LoRA adapters of the base: directories or hub ids.
        dtype: Number format of the merged models; parents are converted when they are loaded.
        stop_tokens: Whose tokens end an answer: `all` parents', those of `base`, `expert`,
            `expert@2` or another model's directory, or a list of tokens or their numbers.
        chat_template: Whose renders the prompts: that of `base`, `expert`, `expert@2`, of a
            `.jinja` file, or of another model's directory.
    """

    base: str
    experts: list[str] = Field(min_length=1)
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    stop_tokens: _Name | Annotated[list[StrictInt | _Name], Field(min_length=1)] = "all"
    chat_template: _Name = "base"


class MergeSection(Section):
    """How candidates are merged, and which weights are searched.

    Args:
        operator: The merge formula.
        granularity: What has a weight of its own: the model, thirds, blocks, layers, the
            attention and the feed-forward module of each layer, or each layer's key/value heads,
            each with its query heads, and the rest of the layer. Blocks are layers that
            fine-tuning moved alike (`blocks`), or whose measured effects are alike
            (`learned-blocks`).
        bounds: Lowest and highest weight.
        embeddings: The embeddings are the base's, the expert's, merged with the mean layer
            weight, or searched.
        head: The same choice for final norm and output matrix.
        density: Share of each task vector that is kept; a mapping from search variables to
            shares, with `default` for the others; or two bounds between which it is searched.
        parameters: Parameters of the operator, such as `lambda`.
        seed: Random seed of the masks of sparsifying operators.
        n_blocks: Number of blocks for granularities `blocks` and `learned-blocks`.
        blocks: First layer of each block for these granularities, e.g. [0, 4, 20]. Defaults to
            None: `n_blocks` of them are found.
        router: The routers of mixtures of experts: merged with their layers, the base's, the
            expert's, or searched.
        towers: Vision and audio towers: `equal` keeps the base's and refuses experts whose towers
            differ; otherwise the base's, the expert's, merged, or searched.
    """

    operator: str = "linear"
    granularity: Granularity = "layer"
    bounds: tuple[float, float] = (0.0, 1.0)
    embeddings: EdgeRule = "merge"
    head: EdgeRule = "merge"
    density: Density | dict[str, Density] | tuple[Density, Density] = 1.0
    parameters: dict[str, float] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    n_blocks: int = Field(default=6, ge=1)
    blocks: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    router: EdgeRule = "merge"
    towers: TowerRule = "equal"

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_choice("operator", self.operator, list(OPERATORS))
        low, high = self.bounds
        if not low < high:
            raise ValueError(
                f"bounds must be [low, high] with low < high, but got [{low:g}, {high:g}]; write "
                f"[{high:g}, {low:g}]"
                if low > high
                else f"bounds [{low:g}, {high:g}] are empty"
            )
        if self.blocks is not None and self.granularity not in ("blocks", "learned-blocks"):
            raise ValueError(
                "blocks belong to granularity blocks or learned-blocks, but it is "
                f"{self.granularity!r}; remove them"
            )
        if isinstance(self.density, tuple) and not self.density[0] < self.density[1]:
            raise ValueError(
                "a density that is searched must be [low, high] with low < high, but got "
                f"{list(self.density)}"
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
            router=self.router,
            towers=self.towers,
        )

    @property
    def densities(self) -> list[float]:
        """All densities that occur."""
        if isinstance(self.density, dict):
            return list(self.density.values())
        return list(self.density) if isinstance(self.density, tuple) else [self.density]


def _check_metric(key: str, name: str) -> None:
    try:
        metric_of(name)
    except KeyError:
        check_choice(key, split_name(name)[0], list(METRICS))


class ObjectiveSection(Section):
    """One objective.

    Args:
        metric: What is measured; direction, unit and standard error follow from it.
            `metric/task` is the value of one task alone.
        reference: The worst value that is still worth something; by default a tenth of the
            parents' range beyond the worse parent.
    """

    metric: str
    reference: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_metric("metric", self.metric)
        return self


class StudySpec(Section):
    """A whole study.

    Example::

        spec = StudySpec.from_yaml("examples/demo.yaml")

    Args:
        study: Where the study is stored and how long it runs.
        models: The parents.
        merge: How candidates are merged, and which weights are searched.
        importance: Prior knowledge about the layers.
        objectives: What is traded off: one metric or several.
        constraints: What every model of the front must keep to: `metric <= number` or
            `metric >= number`, where the metric may be one task's, `metric/task`.
        criteria: What `validate` is to prove, e.g. `gain over uniform > 0 with 95 %`.
        evaluation: Which questions are asked, and how.
        sampler: Who proposes candidates.
        cost: What computing costs, for quotes in money.
        folder: What relative paths are relative to: the directory of the YAML file.
    """

    study: StudySection
    models: ModelsSection
    merge: MergeSection = Field(default_factory=MergeSection)
    importance: ImportanceSection = Field(default_factory=ImportanceSection)
    objectives: list[ObjectiveSection] = Field(min_length=1)
    constraints: list[str] = Field(default_factory=list)
    criteria: list[str] = Field(default_factory=list)
    evaluation: EvaluationSection
    sampler: SamplerSection = Field(default_factory=SamplerSection)
    cost: CostSection | None = None
    folder: Path = Field(default=Path("."), exclude=True)

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [objective.metric for objective in self.objectives]
        if len(set(names)) < len(names):
            raise ValueError(f"objectives must be different metrics, but got {names}")
        for name in [*names, *(c.objective.name for c in self.limits)]:
            self._check_task(name)
        for name, _ in (aim.metric for aim in self.aims if aim.metric is not None):
            check_choice("criteria", name, names)
        if self.evaluation.racing and not all(metric_of(n).statistic is means for n in names):
            raise ValueError(f"racing compares means; remove it, or what is none from {names}")
        texts = [c for c in self.limits if c.objective.metric.kinds == ("read",)]
        if self.evaluation.screen and not texts:
            raise ValueError("`screen` needs a constraint on texts, such as `kl/base <= 0.1`")
        check_end(self.study.trials, self.ends.tokens, self.evaluation.screen)
        n_experts = len(self.models.experts)
        check_search(self.sampler, self.study.stop, self.evaluation.baseline, n_experts)
        if self.sampler.startup == "grid" and self.study.trials == UNLIMITED:
            raise ValueError("a grid is made for a number of trials; set `study.trials`")
        operator = OPERATORS[self.merge.operator]
        check_operator(operator, n_experts, self.merge.parameters, self.merge.densities)
        return self

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a spec.

        Raises:
            SpecError: With one line that names the key, the value and the rule.
        """
        path = Path(path)
        content = read_mapping(path, "spec")
        return cls.parse(content, folder=path.parent, origin=str(path))

    @classmethod
    def parse(cls, content: dict[str, Any], folder: Path, origin: str = "spec") -> Self:
        """Validate a mapping; relative paths in it are relative to `folder`.

        Raises:
            SpecError: With one line that names the key, the value and the rule.
        """
        try:
            return cls.model_validate({**fill_in(content), "folder": folder})
        except ValidationError as error:
            raise SpecError(f"{origin}: {explain(error, cls)}") from None

    def with_overrides(self, storage: str | None = None, trials: int | None = None) -> Self:
        """Return the spec with the command line's storage and number of trials."""
        given = {"storage": storage, "trials": trials}
        changed = {key: value for key, value in given.items() if value is not None}
        content = self.model_dump(mode="json")
        budget = content["study"]["budget"] or {}
        if trials is not None and budget.get("trials"):
            content["study"]["budget"] = None  # said last, so it replaces the file's
        content["study"] |= changed
        return self.parse(content, self.folder, "command line")

    @property
    def ends(self) -> Limits:
        """What ends the study beside the number of its trials."""
        budget, stop, vllm = self.study.budget, self.study.stop, self.evaluation.backend == "vllm"
        return Limits(
            None if budget is None else budget.tokens,
            None if budget is None else budget.gpu_hours,
            None if stop is None else stop.gain,
            self.evaluation.engine.tensor_parallel_size if vllm else 1,
        )

    @property
    def metric_names(self) -> list[str]:
        """The objectives in order."""
        return [objective.metric for objective in self.objectives]

    @property
    def directions(self) -> list[Literal["maximize", "minimize"]]:
        """The objectives' directions in order."""
        return [metric_of(name).direction for name in self.metric_names]

    @property
    def measured(self) -> list[ObjectiveMetric]:
        """The objectives in order, as they are measured."""
        return [self._objective(name) for name in self.metric_names]

    @property
    def aims(self) -> list[Criterion]:
        """The criteria in order.

        Raises:
            ValueError: If one cannot be read.
        """
        return [Criterion.of(text) for text in self.criteria]

    @property
    def limits(self) -> list[Constraint]:
        """The constraints in order.

        Raises:
            ValueError: If one cannot be read.
        """
        return [self._constraint(text) for text in self.constraints]

    @property
    def is_timed(self) -> bool:
        """Whether an objective or a constraint is a time: no answer may come from a cache."""
        measured = [*self.measured, *(limit.objective for limit in self.limits)]
        return any(one.metric.name in ("latency", "throughput") for one in measured)

    def _objective(self, name: str) -> ObjectiveMetric:
        return ObjectiveMetric(metric_of(name), split_name(name)[1], self.evaluation.shares)

    def _constraint(self, text: str) -> Constraint:
        found = _CONSTRAINT.match(text)
        try:
            name, comparison, bound = found.groups() if found else ("", "", "")
            limit = finite_number(bound)
        except ValueError:
            raise ValueError(
                "a constraint must be `metric <= number` or `metric >= number`, the number "
                f"finite, but got {text!r}"
            ) from None
        _check_metric("constraints", name)
        return Constraint(self._objective(name), 1 if comparison == "<=" else -1, limit)

    def _check_task(self, name: str) -> None:
        metric, task = split_name(name)
        if task:
            check_choice(f"the task of {name!r}", task, list(self.evaluation.shares))
        parent = metric_of(name).parent
        if parent is None:
            return
        if parent > len(self.models.experts):
            raise ValueError(f"{metric!r} names an expert that `models.experts` does not have")
