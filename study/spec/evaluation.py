"""The spec's section `evaluation`: which questions, asked how."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from ...errors import SpecError
from ...objectives.evaluation import SCORERS, Reasoning, Sampling, TaskShare, TaskSource
from ...objectives.evaluation.backends.memory import tried_first
from ...objectives.evaluation.backends.reasoning import Unmarked
from ...objectives.evaluation.racing import RaceSettings
from ...objectives.evaluation.rotation import Rotation
from ...objectives.evaluation.tasks import Split
from ...objectives.evaluation.tasks.jsonl import JUDGED
from .base import TASK_NAME, Fraction, Section, check_choice, resolve
from .sampling import ChatSection, JudgeSection, SamplingSection

# Keys that only tasks of lm-eval have.
_HARNESS_KEYS = ("dataset", "metric", "filter", "num_fewshot", "chat", "stop", "reasoning")
# Keys of tasks that give answers.
_ANSWER_KEYS = (
    *("answer", "scorer", "judge", "max_new_tokens", "sampling", "anchors"),
    *_HARNESS_KEYS,
)


class TaskSection(Section):
    """One task: question files, a task of lm-eval, or texts that are read.

    Args:
        name: The task's name, unique in the study.
        files: One JSON lines file per split. Give one of `files`, `path`, `lm_eval`, `texts`.
        path: One JSON lines file, divided by `evaluation.splits`.
        lm_eval: A generative task of lm-evaluation-harness: its name or the path of its YAML
            file; its test questions are divided by `evaluation.splits`.
        texts: A file of texts for divergences (`kl/base`, `kl/expert`) and `perplexity`, divided
            by `evaluation.splits`, or a file per split: JSON lines with the field `text`, or
            plain text with an empty line between two texts.
        prompt: Template of the user's message; `{field}` inserts a field of the line.
        answer: The field that holds the reference answer.
        scorer: Scores answers to a file's questions: a name, or your own `module:function`.
        judge: How the base is asked what answers are worth, for `scorer: judge`. Defaults to
            None: by a prompt of its own, yes or no.
        max_new_tokens: Longest answer, instead of the study's value.
        sampling: Changes to the study's sampling.
        cluster: The field that questions which belong together share, e.g. their passage.
        weight: Weight in the mean over tasks.
        anchors: Scores that count as 0 and 1 in the mean over tasks.
        dataset: Data of an lm-eval task: a local directory, or a file per data split.
        metric: Which score of an lm-eval task counts. Defaults to None: its first.
        filter: Which filter of an lm-eval task applies. Defaults to None: its last.
        num_fewshot: Examples in the prompt of an lm-eval task. Defaults to None: its own.
        chat: Whether the chat template is applied to an lm-eval task's prompts.
        stop: Texts that end an answer to an lm-eval task. Defaults to None: its own.
        reasoning: Whether an lm-eval task's metrics see the reasoning too.
    """

    name: str = Field(min_length=1, max_length=120, pattern=TASK_NAME)
    files: dict[Split, str] = Field(default_factory=dict)
    path: str | None = None
    lm_eval: str | None = None
    texts: str | dict[Split, str] | None = None
    prompt: str = "{prompt}"
    answer: str = "answer"
    scorer: str = "exact_match"
    judge: JudgeSection | None = None
    max_new_tokens: int | None = Field(default=None, ge=1)
    sampling: SamplingSection | None = None
    cluster: str | None = None
    weight: float = Field(default=1.0, gt=0)
    anchors: tuple[float, float] = (0.0, 1.0)
    dataset: str | dict[str, str] | None = None
    metric: str | None = None
    filter: str | None = None
    num_fewshot: int | None = Field(default=None, ge=0)
    chat: bool = True
    stop: list[str] | None = None
    reasoning: bool = False

    @model_validator(mode="after")
    def _check(self) -> Self:
        if ":" not in self.scorer:
            check_choice("scorer", self.scorer, [*SCORERS, JUDGED, "module:function"])
        if self.scorer != JUDGED and self.judge is not None:
            raise ValueError(
                f"`judge` belongs to `scorer: judge`, but the scorer is {self.scorer}"
            )
        given = [self.files or None, self.path, self.lm_eval, self.texts]
        if sum(each is not None for each in given) != 1:
            raise ValueError(
                "a task needs one of `files`, one per split, `path`, `lm_eval` or `texts`"
            )
        for key, files in (("files", self.files), ("texts", self.texts)):
            if files and isinstance(files, dict) and "search" not in files:
                raise ValueError(f"`{key}` must name a file for the split 'search'")
        self._check_foreign()
        if not self.anchors[0] < self.anchors[1]:
            low, high = self.anchors
            raise ValueError(f"anchors must be [low, high], low < high, but got [{low}, {high}]")
        return self

    def _check_foreign(self) -> None:
        """Refuse keys of other kinds of tasks.

        Raises:
            ValueError: With their names.
        """
        fields = type(self).model_fields
        changed = {key for key in fields if getattr(self, key) != fields[key].default}
        foreign = [key for key in _ANSWER_KEYS if key in changed]
        if foreign and self.texts is not None:
            raise ValueError(f"texts are read and not answered: remove {', '.join(foreign)}")
        foreign = [key for key in _HARNESS_KEYS if key in changed]
        if foreign and self.lm_eval is None:
            raise ValueError(f"only tasks of lm-eval have {', '.join(foreign)}")

    @property
    def share(self) -> TaskShare:
        """What the task counts in a mean over tasks."""
        return TaskShare(self.weight, self.anchors)

    def own_sampling(self, default: Sampling) -> Sampling:
        """Return how its answers are drawn, given the study's."""
        sampling = self.sampling.on(default) if self.sampling else default
        return replace(sampling, max_new_tokens=self.max_new_tokens or sampling.max_new_tokens)

    def source(self, folder: Path, fractions: dict[Split, float], default: Sampling) -> TaskSource:
        """Return a task of files, with paths relative to `folder` resolved."""
        own = self.own_sampling(default)
        given = self.texts if isinstance(self.texts, dict) else self.files
        path = self.texts if isinstance(self.texts, str) else self.path
        asked = type(self).model_fields["prompt"].default
        return TaskSource(
            self.name,
            {split: resolve(folder, file) for split, file in given.items()},
            None if path is None else resolve(folder, path),
            "{text}" if self.texts is not None and self.prompt == asked else self.prompt,
            self.answer,
            self.scorer,
            fractions,
            None if own == default else own,
            self.cluster,
            folder,
        )

    def harness_name(self, folder: Path) -> str:
        """Return an lm-eval task's name, or the path of its file."""
        inside = resolve(folder, self.lm_eval or "")
        return str(inside) if inside.is_file() else self.lm_eval or ""

    def local_dataset(self, folder: Path) -> str | dict[str, str] | None:
        """Return an lm-eval task's data with local paths resolved."""
        if isinstance(self.dataset, dict):
            return {split: str(resolve(folder, path)) for split, path in self.dataset.items()}
        if self.dataset is None:
            return None
        inside = resolve(folder, self.dataset)
        return str(inside) if inside.exists() else self.dataset


class EngineSection(Section):
    """How vLLM is started.

    Args:
        tensor_parallel_size: Number of GPUs that share one model.
        gpu_memory_utilization: Share of each GPU's memory for weights and KV cache.
        max_model_len: Longest prompt and answer together, in tokens. Defaults to None: the
            model's own.
        max_num_seqs: Number of answers generated at the same time.
        batch_invariant: Whether answers must not depend on what else is in the batch, at some
            cost in speed (`VLLM_BATCH_INVARIANT`).
    """

    tensor_parallel_size: int = Field(default=1, ge=1)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    max_model_len: int | None = Field(default=None, ge=1)
    max_num_seqs: int = Field(default=256, ge=1)
    batch_invariant: bool = False


class RacingSection(Section):
    """How many questions a candidate is asked, depending on how it does.

    Args:
        share: Share of the questions that every searched candidate is asked.
        strong_share: Share for candidates that no other beats in all objectives. Defaults to
            None: the same as `share`.
        blocks: Shares of the questions after which clearly worse candidates are stopped.
        margin: How many standard errors make a candidate clearly worse.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.4
    strong_share: Annotated[float, Field(gt=0, le=1)] | None = None
    blocks: list[Annotated[float, Field(gt=0, lt=1)]] = Field(default_factory=list)
    margin: float = Field(default=0.5, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        shares = [*self.blocks, self.share]
        if sorted(set(shares)) != shares:
            raise ValueError(f"blocks must increase and stay below share, but got {shares}")
        if self.settings.strong_share < self.share:
            raise ValueError(f"strong_share must be at least share, {self.share:g}")
        return self

    @property
    def settings(self) -> RaceSettings:
        """Return what the race needs."""
        strong = self.share if self.strong_share is None else self.strong_share
        return RaceSettings(self.share, strong, tuple(self.blocks), self.margin)


_Marker = Annotated[str, Field(min_length=1)]


class ReasoningSection(Section):
    """How reasoning is told from the final answer; see `Reasoning`.

    Args:
        markers: Pairs of what opens and what closes it. Defaults to None: those of known models.
        unmarked: What an answer cut at the limit is that has no marker.
    """

    markers: list[tuple[_Marker, _Marker]] | None = Field(default=None, min_length=1)
    unmarked: Unmarked = "auto"

    @field_validator("markers")
    @classmethod
    def _check(cls, value: list[tuple[str, str]] | None) -> list[tuple[str, str]] | None:
        opening, closing = ({pair[side] for pair in value or ()} for side in (0, 1))
        if both := opening & closing:
            raise ValueError(f"{min(both)!r} cannot both open reasoning and close it")
        return value

    @property
    def settings(self) -> Reasoning:
        """Return what the backends need."""
        if self.markers is None:
            return Reasoning(unmarked=self.unmarked)
        return Reasoning(tuple(self.markers), self.unmarked)


def _splits() -> dict[Split, Fraction]:
    return {"search": 0.6, "validation": 0.4}


class EvaluationSection(Section):
    """How candidates are measured.

    Args:
        backend: The program that generates answers.
        engine: Settings of vLLM.
        tasks: Where questions come from.
        max_new_tokens: Longest answer, in tokens; longer ones are cut.
        chat: What the chat template is given beside each question.
        sampling: How answers are drawn. Defaults to None: greedily, once.
        batch_size: Number of answers that transformers generates at the same time; `auto` tries
            many, and halves the number where memory is short.
        splits: Share of the questions of a `path`, or of an lm-eval task, in each split.
        cache: Whether answers are kept beside the study so that none is generated twice; a path
            names a file that several studies share.
        racing: How many questions candidates are asked. Defaults to None: all are asked all.
        reasoning: How reasoning is told from the final answer.
        screen: Whether searched candidates are asked nothing that clearly break a constraint on
            texts.
        rotate: Whether each candidate is asked another quarter of the search questions, dealt like
            cards; a number names how many of them make the pool. Defaults to false: all are asked
            the same.
        baseline: How many uniform merges are measured in all: those beyond the start-up's go where
            the uniform curve bends, right after it and from the same budget. Defaults to None: the
            start-up's alone.
    """

    backend: Literal["transformers", "vllm"] = "transformers"
    engine: EngineSection = Field(default_factory=EngineSection)
    tasks: list[TaskSection] = Field(min_length=1)
    max_new_tokens: int = Field(default=256, ge=1)
    chat: ChatSection = Field(default_factory=ChatSection)
    sampling: SamplingSection | None = None
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 64
    splits: dict[Split, Fraction] = Field(default_factory=_splits)
    cache: bool | Annotated[str, Field(min_length=1)] = True
    racing: RacingSection | None = None
    reasoning: ReasoningSection = Field(default_factory=ReasoningSection)
    rotate: bool | Annotated[int, Field(ge=8)] = False
    screen: bool = False
    baseline: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.rotate and self.racing:
            raise ValueError(
                "`racing` compares candidates on the same questions and `rotate` asks each "
                "others; keep one of them"
            )
        if sum(self.splits.values()) > 1 + 1e-9:
            raise ValueError(
                f"the fractions of `splits` must add up to 1 at most, but got {self.splits}"
            )
        if not self.splits.get("search"):
            raise ValueError("`splits` must give the split 'search' a fraction above 0")
        if any(task.sampling and task.sampling.from_ for task in self.tasks):
            raise ValueError("`sampling.from` is the study's: give it under evaluation.sampling")
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"tasks must have different names, but got {names}")
        return self

    @property
    def together(self) -> int:
        """Answers of transformers at the same time, for estimates: with `auto` what it tries."""
        return tried_first() if self.batch_size == "auto" else self.batch_size

    @property
    def race(self) -> RaceSettings | None:
        """Settings of the race, if there is one."""
        return None if self.racing is None else self.racing.settings

    def check_pool(self, n: int) -> None:
        """Check that the split `search` has as many questions as `rotate` names.

        Raises:
            SpecError: If it has fewer than that.
        """
        if not isinstance(self.rotate, bool) and self.rotate > n:
            raise SpecError(
                f"evaluation.rotate names a pool of {self.rotate} questions, but the split "
                f"'search' has {n}. Write true, which takes all of them, or {n} at most."
            )

    def rotation(self, tasks: Sequence[str], seed: int) -> Rotation | None:
        """Return who deals questions to candidates; None where all are asked the same.

        Args:
            tasks: Name of each search question's task.
            seed: Of the study.
        """
        if not self.rotate:
            return None
        return Rotation(tasks, None if self.rotate is True else self.rotate, seed)

    @property
    def shares(self) -> dict[str, TaskShare]:
        """What each task counts in a mean over tasks."""
        return {task.name: task.share for task in self.tasks}
