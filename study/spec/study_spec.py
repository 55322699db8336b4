"""StudySpec: everything a study is defined by, read from YAML and checked as a whole."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ...errors import SpecError
from ...objectives.evaluation import METRICS, Constraint, ObjectiveMetric
from ...objectives.evaluation.estimators import means
from ...objectives.evaluation.metric_table import metric_of, split_name
from ...objectives.evaluation.paired import Criterion
from ...objectives.merging import Arm
from ..budget import UNLIMITED, Limits
from .base import Section, check_choice, finite_number, read_mapping
from .evaluation import EvaluationSection
from .merge import (
    MergeSection,
    ModelsSection,
    PrecisionSection,
    arms_of,
    check_arm,
    check_dtype,
    check_order,
)
from .mistakes import explain
from .presets import fill_in
from .search import (
    CostSection,
    ImportanceSection,
    SamplerSection,
    StudySection,
    check_end,
    check_joint,
    check_search,
)

_CONSTRAINT = re.compile(r"^\s*([^\s<>=]+)\s*(<=|>=)\s*(\S+)\s*$")


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
        check_dtype(self.merge.settings(n_experts).precision, self.models.dtype)
        if isinstance(self.merge.precision, PrecisionSection):
            check_joint(self.sampler, self.evaluation.baseline, "precisions")
        if self.arms:
            check_joint(self.sampler, self.evaluation.baseline)
        else:
            (operator,), numbers = self.merge.operators, tuple(range(1, n_experts + 1))
            density = self.merge.density_of(operator)
            only = Arm(operator.name, numbers, density, operator.parameters)
            check_arm(only, self.merge)
            check_order([only], self.merge)
        return self

    @property
    def arms(self) -> tuple[Arm, ...]:
        """What candidates may be merged by; none where operator and experts are fixed."""
        return arms_of(self.models, self.merge)[0]

    def of_arm(self, arm: Arm, stop_tokens: Sequence[int]) -> Self:
        """Return the spec of a study of one arm alone, for what is made of its candidates.

        Experts have other numbers in it than in the study, so it measures nothing: no metric may
        silently mean another expert.

        Args:
            arm: Of the spec.
            stop_tokens: Of the study: those of fewer parents might be others.
        """
        experts = self.models.experts
        template = self.models.chat_template
        roles = {"expert": experts[0], **{f"expert@{k}": e for k, e in enumerate(experts, 1)}}
        models = {
            "experts": [experts[k - 1] for k in arm.experts],
            "choose": None,
            "stop_tokens": list(stop_tokens),
            "chat_template": roles.get(template, template),
        }
        merge = {
            "operator": arm.operator,
            "density": arm.density,
            "parameters": dict(arm.parameters),
            "order": "given" if arm.is_chain else None,
        }
        changed = {
            "models": self.models.model_copy(update=models),
            "merge": self.merge.model_copy(update=merge),
            **{key: [] for key in ("objectives", "constraints", "criteria")},
        }
        return self.model_copy(update=changed)

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

    @property
    def is_sized(self) -> bool:
        """Whether an objective or a constraint is what a model's weights take."""
        measured = [*self.measured, *(limit.objective for limit in self.limits)]
        return any(one.metric.name == "memory" for one in measured)

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
            if metric == "memory":
                raise ValueError(f"{name!r}: a model has one size in all tasks; write `memory`")
        parent = metric_of(name).parent
        if parent is None:
            return
        if parent > len(self.models.experts):
            raise ValueError(f"{metric!r} names an expert that `models.experts` does not have")
