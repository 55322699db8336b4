"""The files behind a spec, found and checked before anything is created."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import SpecError
from ...objectives.checkpoints import (
    Checkpoint,
    check_mergeable,
    open_expert,
    resolve_model,
)
from ...objectives.checkpoints.configs import config_hash
from ...objectives.evaluation import (
    SPLITS,
    ChatSettings,
    Models,
    Reasoning,
    Sampling,
    Task,
    TaskShare,
    check_disjoint,
)
from ...objectives.evaluation.backends.backend import Kind
from ...objectives.importance import task_vector_norms
from ...objectives.merging import (
    Arm,
    MergePlan,
    MergeSettings,
    Recipe,
    check_operator_fits,
    check_precision,
    check_towers,
    find_blocks,
    plan_of,
)
from ...objectives.merging.precision import FORMATS
from ...objectives.merging.settings import arm_name
from .base import near_hint
from .dialogue import (
    CUT,
    chat_template_of,
    check_chat,
    cut_is_reasoning,
    load_task_of,
    stop_tokens_of,
)
from .hashing import cached_hash, versions
from .sampling import greedy_warning, parents, resolved, shown
from .study_spec import StudySpec

# What a front may be checked on: the sampler sees neither.
FRESH_SPLITS = ("validation", "test")

# What a metric is counted in, and what brings it.
_NEEDS: dict[Kind, tuple[str, str]] = {
    "generated": ("generated answers", "Add a task that generates"),
    "compared": ("answers", "Add a task that is answered"),
    "read": ("texts that are read", "Add a task with `texts: FILE`"),
}

Resolve = Callable[[str, Path], Path]
Groups = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class StudyInputs:
    """A valid spec with its models and tasks.

    Args:
        spec: What was asked for.
        base: Weight 0.
        experts: Weight 1 each.
        plan: The search variables, from the base checkpoint's tensor names.
        tasks: With at least a search split each.
        stop_tokens: Ids that end an answer.
        chat_template: Its source. Defaults to None: the base's.
        has_measured: Whether blocks of layers were measured for it, and its spec named none.
        arm: Whose study alone it is, with the whole study's numbers of experts. Defaults to None:
            it is the whole study.
        arm_name: What that study calls it: `ties of 1+2`.
    """

    spec: StudySpec
    base: Checkpoint
    experts: tuple[Checkpoint, ...]
    plan: MergePlan
    tasks: tuple[Task, ...]
    stop_tokens: tuple[int, ...] = ()
    chat_template: str | None = None
    has_measured: bool = False
    arm: Arm | None = None
    arm_name: str = ""

    @classmethod
    def of(cls, spec: StudySpec, resolve: Resolve = resolve_model) -> "StudyInputs":
        """Find and check everything a spec names; create nothing.

        Args:
            spec: What was asked for.
            resolve: Finds a model's directory, given its name in the spec and the spec's folder.

        Raises:
            SpecError: At the first thing that is missing or does not fit.
            LayoutError: If a tensor is covered by no merge rule.
        """
        inputs = cls.without_tasks(spec, resolve)
        base, template = inputs.base, inputs.chat_template
        sampling = inputs.sampling
        check_chat(spec, base.directory, template)
        tasks = tuple(
            load_task_of(task, spec, base, sampling, template) for task in spec.evaluation.tasks
        )
        check_disjoint(tasks)
        asked = [task for task in tasks if not task.reads]
        spec.evaluation.check_pool(sum(len(t.splits.get("search", ())) for t in asked))
        _check_measurable(spec, tasks)
        return replace(inputs, tasks=tasks)

    @classmethod
    def without_tasks(cls, spec: StudySpec, resolve: Resolve = resolve_model) -> "StudyInputs":
        """Find and check the models alone: enough to merge, not to measure; see `of`."""
        base = Checkpoint(resolve(spec.models.base, spec.folder))
        paths = [resolve(expert, spec.folder) for expert in spec.models.experts]
        experts = tuple(open_expert(path, base) for path in paths)
        check_mergeable(base, experts)
        plan = _plan(spec, base, experts)
        check_operator_fits(base, plan.settings)
        check_precision(base, plan)
        check_towers(base, experts, plan)
        stops = stop_tokens_of(spec, (base, *experts))
        template = chat_template_of(spec, (base, *experts))
        return cls(spec, base, experts, plan, (), stops, template)

    @property
    def models(self) -> Models:
        """What a backend loads."""
        paths = tuple(expert.directory for expert in self.experts)
        return Models(
            self.base.directory,
            paths,
            self.spec.models.dtype,
            self.plan.settings,
            self.spec.evaluation.reasoning.settings,
            self.stop_tokens,
            self.chat_template,
            self.spec.evaluation.chat.settings,
        )

    @property
    def recipe(self) -> Recipe:
        """The sources and rules of its merges."""
        dtype: torch.dtype = getattr(torch, self.spec.models.dtype)
        return Recipe(self.base, self.experts, self.plan, dtype)

    def fingerprint(self) -> dict[str, Any]:
        """Return every field that changes a measurement, by its place in the spec.

        Batch size is not among them: it changes how fast the same greedy answers come.
        """
        weights = {
            "models.base": cached_hash(self.base),
            "models.experts": [cached_hash(expert) for expert in self.experts],
            "models.tokenizer": self.base.tokenizer_hash(),
            "models.config": config_hash(self.base.directory),
        }
        return weights | self.settings_print()

    def settings_print(self) -> dict[str, Any]:
        """Return the fields of the fingerprint that no model has to be read for."""
        evaluation = self.spec.evaluation
        return {
            "models.stop_tokens": list(self.stop_tokens),
            "models.dtype": self.spec.models.dtype,
            **self._merge_settings(),
            "objectives": self.spec.metric_names,
            "evaluation.backend": evaluation.backend,
            "evaluation.tasks": {task.name: task.content_hash() for task in self.tasks},
            "evaluation.max_new_tokens": evaluation.max_new_tokens,
            CUT: cut_is_reasoning(self.spec, (self.base, *self.experts)),
            **self._rules(),
            **self.text_lengths(),
            # What was promised before the run stays what was promised.
            **({"criteria": self.spec.criteria} if self.spec.criteria else {}),
        }

    def _merge_settings(self) -> dict[str, Any]:
        """Return how candidates are parametrised; rules that few models have, if they are used."""
        settings = self.spec.merge.model_dump(mode="json")
        unused = {("router", "merge"), ("towers", "equal"), ("precision", "None")}
        unused |= {("blocks", "None"), ("order", "None")}
        rules = {f"merge.{k}": v for k, v in settings.items() if (k, str(v)) not in unused}
        if settings["precision"] is not None:  # how it rounds is not for the spec to say
            rules["merge.precision.scales"] = {n: list(f.groups) for n, f in FORMATS.items()}
        choose = self.spec.models.choose
        return rules | ({} if choose is None else {"models.choose": choose.model_dump()})

    def at(self, params: Mapping[str, Any]) -> tuple["StudyInputs", Groups]:
        """Return what a candidate is made of, and its weights, as of a study of its arm alone.

        The same inputs where operator and experts are fixed.

        Args:
            params: Of the candidate.

        Returns:
            The inputs, and the weights of every search variable, one number an expert.

        Raises:
            LayoutError: If a parameter is missing or unknown, or they name no arm.
        """
        candidate = self.plan.at(self.plan.group_weights(params))
        return self.of_arm(params), candidate.groups

    def of_arm(self, choices: Mapping[str, Any]) -> "StudyInputs":
        """Return the inputs of a study of one arm alone; the same where there is no choice.

        Args:
            choices: Parameters that name the arm.

        Raises:
            LayoutError: If they name none.
        """
        if not self.plan.arms:
            return self
        place = self.plan.settings.arm_of(choices)
        arm = self.plan.settings.arms[place]
        return replace(
            self,
            spec=self.spec.of_arm(arm, self.stop_tokens),
            experts=tuple(self.experts[k - 1] for k in arm.experts),
            plan=self.plan.arms[place],
            arm=arm,
            arm_name=arm_name(self.plan.settings.choice(place)),
        )

    def _rules(self) -> dict[str, Any]:
        """Return what turns answers into values, as far as it is not the default."""
        shares = {n: s for n, s in self.spec.evaluation.shares.items() if s != TaskShare()}
        rules: dict[str, Any] = {}
        if self.chat_template is not None:
            rules["models.chat_template"] = Checkpoint.hash_lines([self.chat_template])
        if self.spec.evaluation.reasoning.settings != Reasoning():
            rules["evaluation.reasoning"] = self.spec.evaluation.model_dump(mode="json")[
                "reasoning"
            ]
        if shares:
            rules["evaluation.shares"] = {n: [s.weight, *s.anchors] for n, s in shares.items()}
        chat = self.spec.evaluation.chat.settings
        if chat != ChatSettings():
            rules["evaluation.chat"] = asdict(chat)
        drawn = self.sampling.described()
        del drawn["max_new_tokens"]
        if drawn:
            rules["evaluation.sampling"] = drawn
        if self.spec.is_timed:
            section = self.spec.evaluation.model_dump(mode="json")
            rules["evaluation.speed"] = [section["batch_size"], section["engine"]]
        if self.spec.evaluation.race:
            rules["evaluation.racing"] = self.spec.evaluation.model_dump(mode="json")["racing"]
        if self.spec.evaluation.rotate:
            rules["evaluation.rotate"] = self.spec.evaluation.rotate
        if self.spec.constraints:
            rules["constraints"] = [limit.name for limit in self.spec.limits]
        return rules

    def text_lengths(self) -> dict[str, int | None]:
        """Return what limits the windows in which texts are read, if there is a choice."""
        evaluation = self.spec.evaluation
        if evaluation.backend != "vllm" or not any(task.reads for task in self.tasks):
            return {}
        return {"evaluation.engine.max_model_len": evaluation.engine.max_model_len}

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn where a task does not say."""
        return _sampling(self.spec, self.models.base, self.models.experts)[0]

    @property
    def decoding(self) -> str:
        """How answers are drawn, for readers, and on whose advice."""
        return shown(*_sampling(self.spec, self.models.base, self.models.experts))

    @property
    def greedy_warning(self) -> str | None:
        """Return a warning if answers are greedy and a parent recommends otherwise."""
        return greedy_warning(self.sampling, parents(self.models.base, self.models.experts))

    def answer_scope(self) -> str:
        """Return a hash of all that an answer depends on, but weights, prompt and sampling."""
        own = (
            "models.",
            "merge.",
            "evaluation.backend",
            "evaluation.reasoning",
            "evaluation.chat",
            CUT,
        )
        fields = {key: value for key, value in self.fingerprint().items() if key.startswith(own)}
        if fields[CUT] == cut_is_reasoning(self.spec, [self.base]):
            del fields[CUT]  # what else is here tells it
        fields["versions"] = versions()
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def fresh_split(self, name: str) -> list[Task]:
        """Return the tasks, after checking that `name` is a split the search never saw.

        Raises:
            SpecError: If it is not, or a task has no questions in it.
        """
        if name not in FRESH_SPLITS:
            known = "; the search saw its questions" if name in SPLITS else ""
            raise SpecError(
                f"A split of fresh questions must be {' or '.join(FRESH_SPLITS)}, but got "
                f"{name!r}{known}{near_hint(name, FRESH_SPLITS)}"
            )
        return self.split(name)

    def split(self, name: str) -> list[Task]:
        """Return the tasks, after checking that each has questions in the split `name`.

        Raises:
            SpecError: If one has none.
        """
        if name not in SPLITS:
            raise SpecError(f"A split must be one of {', '.join(SPLITS)}, but got {name!r}.")
        for task in self.tasks:
            if name not in task.splits:
                raise SpecError(
                    f"Task {task.name!r} has no split {name!r}; it has {', '.join(task.splits)}. "
                    "Add it under `evaluation.tasks`."
                )
        return list(self.tasks)


def _sampling(spec: StudySpec, base: Path, experts: Sequence[Path]) -> tuple[Sampling, str | None]:
    evaluation, models = spec.evaluation, parents(base, experts)
    return resolved(evaluation.sampling, models, evaluation.max_new_tokens, spec.study.seed)


def _check_measurable(spec: StudySpec, tasks: Sequence[Task]) -> None:
    """Check that every metric has a task that it is measured on.

    Raises:
        SpecError: If one has none.
    """
    if spec.is_timed and spec.evaluation.batch_size == "auto":
        raise SpecError(
            "Times depend on how many answers are generated together: give evaluation.batch_size "
            "a number instead of 'auto', or remove the metrics that are times."
        )
    kinds = {task.name: task.kind for task in tasks}
    for measured in [*spec.measured, *(limit.objective for limit in spec.limits)]:
        counted = [measured.task] if measured.task else list(kinds)
        if not {kinds[name] for name in counted} & {*measured.metric.kinds}:
            names = " and ".join(map(repr, sorted(counted)))
            what, remedy = _NEEDS[measured.metric.kinds[0]]
            raise SpecError(
                f"{measured.name!r} is counted in {what}, but {names} "
                f"{'has' if len(counted) == 1 else 'have'} none. {remedy}, or remove it."
            )


def _plan(spec: StudySpec, base: Checkpoint, experts: tuple[Checkpoint, ...]) -> MergePlan:
    blocks = spec.merge.blocks or ()
    if spec.merge.granularity == "blocks" and not blocks:
        fixed = MergeSettings(embeddings="base", head="base", n_experts=len(experts))
        norms = task_vector_norms(base, experts, plan_of(base, fixed))
        per_layer = np.array(list(norms.values())).reshape(-1, len(experts)).mean(axis=1)
        blocks = find_blocks(per_layer.tolist(), spec.merge.n_blocks)
    if spec.merge.granularity == "learned-blocks" and not blocks:
        raise SpecError(
            "Learned blocks are measured when a study is created. Begin it with `mergefront init` "
            "or `run`, or name them as merge.blocks."
        )
    plan = plan_of(base, spec.merge.settings(len(experts), blocks, spec.arms))
    _check_densities(spec, plan)
    return plan


def _check_densities(spec: StudySpec, plan: MergePlan) -> None:
    if isinstance(spec.merge.density, dict):
        unknown = sorted(spec.merge.density.keys() - {*plan.groups, "default"})
        if unknown:
            raise SpecError(
                f"merge.density must name search variables ({', '.join(plan.groups)}) or "
                f"'default', but got {unknown}."
            )


def load_inputs(path: str | Path) -> StudyInputs:
    """Read a spec file and check all it names."""
    return StudyInputs.of(StudySpec.from_yaml(path))
