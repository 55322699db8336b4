"""Tasks of lm-evaluation-harness: its prompts, filters and metrics, our engines.

`load_harness_task` turns a task of the harness into a `Task`: what is asked, and how an answer's
text or the likelihoods of choices are scored, are the harness's own doing. `HarnessLM` is the
other way round. Both hand the same texts to the same code, so a question's score is the same
either way, and the same as with the harness's own `hf` model where that generates the same
tokens. Imported only where such a task is used.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.defaults import default_gen_kwargs
from lm_eval.models.utils import normalize_gen_kwargs

from ....errors import EvaluationError, SpecError
from ..backends.backend import ChatSettings, Completion, Sampling
from ..backends.chat import Chat
from ..backends.likelihood import Pair, likelihoods_in
from . import Question, Task
from .harness_files import HarnessSource, open_tasks, seeded
from .harness_lm import HarnessLM, harness_text
from .task import check_disjoint, check_splits, divide, without_copies

__all__ = ["HarnessLM", "HarnessSource", "load_harness_task"]


def load_harness_task(
    source: HarnessSource,
    base: Path,
    default: Sampling | int,
    template: str | None = None,
    settings: ChatSettings | None = None,
) -> Task:
    """Load a task of the harness, or a group of them as one task.

    Args:
        source: Which, and how.
        base: Directory of the base, whose tokenizer and chat template render the prompts.
        default: How answers are drawn, or their limit alone, which holds where neither the source
            nor the task says.
        template: Source of another chat template. Defaults to None: the base's.
        settings: What the template is given. Defaults to None: nothing.

    Raises:
        SpecError: If the task is unknown, cannot be scored answer by answer, or its data are not
            at hand.
    """
    chat = Chat(base, template=template, chat=settings)
    default = Sampling(default) if isinstance(default, int) else default
    with seeded():
        opened = open_tasks(source)
        parts = [_Part.of(task, source, chat, default, len(opened) > 1) for task in opened]
    sampling = _common(source, parts)
    by_id = {question.id: part for part in parts for question in part.questions}
    questions = [question for part in parts for question in part.questions]
    questions = without_copies(questions, f"task {source.name!r}")
    divided = divide(questions, lambda q: q.content_hash, source.fractions)
    splits = {split: tuple(members) for split, members in divided.items()}
    check_splits(source.name, splits)
    loaded = Task(
        source.name,
        json.dumps([identity for part in parts for identity in part.identity]),
        splits,
        lambda question, completion: by_id[question.id].score(question.id, completion),
        sampling,
    )
    check_disjoint([loaded])
    return loaded


def _common(source: HarnessSource, parts: Sequence["_Part"]) -> Sampling:
    """Return how all parts of a task are answered.

    Raises:
        SpecError: If there is no one way.
    """
    ways = list(dict.fromkeys(part.sampling for part in parts))
    if len(ways) != 1:
        names = sorted({str(part.task.task_name) for part in parts})
        raise SpecError(
            f"The tasks of a group must be asked in one way, but those of {source.task!r} differ "
            f"in stop texts or limits. Name them one by one under `evaluation.tasks`: "
            f"{', '.join(names)[:200]}."
        )
    return ways[0]


@dataclass(frozen=True)
class _Part:
    """One task of the harness, of which a group may have many.

    Args:
        task: The harness's own.
        questions: One a document.
        instances: What is asked of each, by the question's id: one text, or one a choice.
        sampling: How it is answered.
        scoring: How that is scored.
    """

    task: Any
    questions: list[Question]
    instances: Mapping[str, list[Instance]]
    sampling: Sampling
    scoring: "_Scoring"

    @classmethod
    def of(
        cls, task: Any, source: HarnessSource, chat: Chat, default: Sampling, grouped: bool
    ) -> "_Part":
        instances: dict[str, list[Instance]] = {}
        for instance in _instances(task, source, chat):
            name = f"{task.task_name}:{instance.doc_id}" if grouped else str(instance.doc_id)
            instances.setdefault(name, []).append(instance)
        sampling = _sampling(task, next(iter(instances.values()))[0], source, default)
        scoring = _Scoring(task, *_metric(task, source), chat, source.reasoning)
        questions = [_question(task, name, own, source) for name, own in instances.items()]
        part = cls(task, questions, instances, sampling, scoring)
        part.check(source)
        return part

    @property
    def identity(self) -> list[Any]:
        return ["lm-eval", self.task.task_name, str(self.task.VERSION), *self.scoring.identity]

    def score(self, question: str, completion: Completion) -> float:
        """Return the harness's metric for one answer."""
        return self.scoring.score(self.instances[question], completion, self.sampling)

    def check(self, source: HarnessSource) -> None:
        """Score an answer before anything is generated.

        Raises:
            SpecError: If that gives no score.
        """
        question = self.questions[0]
        rows = json.dumps([[-1.0 - i, False, 1] for i in range(len(question.pairs))])
        answer = Completion(rows if question.pairs else "0", 1, "stop")
        try:
            self.score(question.id, answer)
        except Exception as error:  # whatever filters and metrics raise
            reason = str(error) or type(error).__name__
            others = ", ".join(ensemble.name for ensemble in self.task._filters)
            raise SpecError(
                f"Task {source.name!r} must give a score to each single answer, but lm-eval's "
                f"{self.task.task_name!r} with metric {self.scoring.metric!r} and filter "
                f"{self.scoring.filter!r} does not: {reason.splitlines()[0]} Choose another "
                f"`metric` ({', '.join(_metrics(self.task))}) or `filter` ({others})."
            ) from error


def _instances(task: Any, source: HarnessSource, chat: Chat) -> list[Instance]:
    task.config.repeats = 1  # how often each question is answered is the study's to say
    template = source.chat and bool(chat.tokenizer.chat_template)
    task.set_fewshot_seed(seed=1234)  # the harness's own default
    task.build_all_requests(
        apply_chat_template=template,
        fewshot_as_multiturn=template,
        chat_template=chat.conversation if template else None,
        tokenizer_name="",
    )
    instances: list[Instance] = task.instances
    return instances


def _question(
    task: Any, name: str, instances: Sequence[Instance], source: HarnessSource
) -> Question:
    instance = instances[0]
    target = json.dumps(task.doc_to_target(instance.doc), default=str)
    content = task.doc_to_text(instance.doc)
    pairs: tuple[Pair, ...] = ()
    if task.OUTPUT_TYPE != "generate_until":
        pairs = tuple((each.args[0], each.args[1]) for each in instances)
        # Many questions share their words, and differ in their choices.
        content = json.dumps([str(content), [pair[1] for pair in pairs]])
        content = json.dumps(pairs) if task.multiple_input else content
    cluster = _cluster(instance.doc, source)
    return Question(name, instance.args[0], target, str(content), cluster, pairs)


def _cluster(doc: Mapping[str, Any], source: HarnessSource) -> str:
    if source.cluster is None:
        return ""
    if source.cluster not in doc:
        raise SpecError(
            f"`cluster` of task {source.name!r} must be a field of its data ({', '.join(doc)}), "
            f"but got {source.cluster!r}."
        )
    return str(doc[source.cluster])


def _sampling(task: Any, instance: Instance, source: HarnessSource, default: Sampling) -> Sampling:
    if task.OUTPUT_TYPE != "generate_until":
        return Sampling(0, chat=False)
    chosen = normalize_gen_kwargs(instance.args[1], default.max_new_tokens)
    unsaid = instance.args[1] == default_gen_kwargs(task.config.fewshot_delimiter)
    limit = default.max_new_tokens if unsaid else chosen["max_gen_toks"]
    stop = source.stop if source.stop is not None else tuple(chosen["until"])
    n_tokens = source.max_new_tokens or limit
    texts = tuple(text for text in stop if text)
    return replace(default, max_new_tokens=n_tokens, stop=texts, chat=False)


def _metrics(task: Any) -> list[str]:
    """Return the names of a task's metrics, those that are functions too."""
    return [getattr(name, "__name__", str(name)) for name in task._metric_fn_list]


def _metric(task: Any, source: HarnessSource) -> tuple[str, str]:
    """Return the names of metric and filter.

    Raises:
        SpecError: If the task has none of that name.
    """
    filters = [ensemble.name for ensemble in task._filters]
    chosen = {}
    for kind, names, name, place in (
        ("metric", _metrics(task), source.metric, 0),
        ("filter", filters, source.filter, -1),
    ):
        if name is not None and name not in names:
            raise SpecError(
                f"`{kind}` of task {source.name!r} must be one of {', '.join(map(str, names))}, "
                f"but got {name!r}."
            )
        chosen[kind] = name or str(names[place])
    return chosen["metric"], chosen["filter"]


@dataclass(frozen=True)
class _Scoring:
    task: Any
    metric: str
    filter: str
    chat: Chat
    reasoning: bool

    @property
    def identity(self) -> list[Any]:
        return [self.metric, self.filter, self.reasoning, *(["turned"] if self.is_turned else [])]

    @property
    def is_turned(self) -> bool:
        """Whether the metric is an error rate: what is left of it is the score."""
        known = self.task.higher_is_better()
        return known.get(self.metric, True) is False

    def score(
        self, instances: Sequence[Instance], completion: Completion, sampling: Sampling
    ) -> float:
        """Return the harness's metric for one answer; 1 less it, where lower is better.

        Raises:
            EvaluationError: If it is not one number within [0, 1] an answer.
        """
        given: Sequence[Any] = (
            [(each.total, each.is_greedy) for each in likelihoods_in(completion.text)]
            if not sampling.generates
            else [harness_text(completion, sampling, self.chat, self.reasoning)]
        )
        answered = [copy.copy(instance) for instance in instances]
        for instance, response in zip(answered, given, strict=True):
            instance.resps, instance.filtered_resps = [response], {}
        ensemble = next(e for e in self.task._filters if e.name == self.filter)
        ensemble.apply(answered)
        filtered = [instance.filtered_resps[self.filter] for instance in answered]
        results = self.task.process_results(answered[0].doc, filtered)
        score = results.get(self.metric)
        if not isinstance(score, int | float | np.number | np.bool_) or not 0 <= score <= 1:
            raise EvaluationError(
                f"A metric must give one number within [0, 1] an answer, but {self.metric!r} of "
                f"lm-eval's task {self.task.task_name!r} gives {score!r:.40}. Choose another "
                "`metric`."
            )
        return 1.0 - float(score) if self.is_turned else float(score)
