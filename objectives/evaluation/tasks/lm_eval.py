"""Tasks of lm-evaluation-harness: its prompts, filters and metrics, our engines.

`load_harness_task` turns a task of the harness into a `Task`: what is asked, and how an answer's
text or the likelihoods of choices are scored, are the harness's own doing. `HarnessLM` is the
other way round. Both hand the same texts to the same code, so a question's score is the same
either way, and the same as with the harness's own `hf` model where that generates the same
tokens. Imported only where such a task is used.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.defaults import default_gen_kwargs
from lm_eval.models.utils import normalize_gen_kwargs

from ....errors import SpecError
from ..backends.backend import ChatSettings, Completion, Sampling
from ..backends.chat import Chat
from ..backends.likelihood import Pair
from ..scorers.forked import ForkedScorer
from . import Question, Task
from .harness_files import HarnessSource, open_tasks, seeded
from .harness_lm import HarnessLM
from .harness_scoring import HarnessScoring, chosen_metric, metrics_of
from .lines import cluster_name
from .task import check_disjoint, check_splits, divide, without_copies

logger = logging.getLogger(__name__)

# Texts whose perplexity is measured.
_ROLLING = "loglikelihood_rolling"
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
    voting = any(part.scoring.votes for part in parts)
    scorer = ForkedScorer(lambda question, given: by_id[question].judge(question, given))
    scorer.start()

    def together(question: Question, completions: Sequence[Completion]) -> float:
        part = by_id[question.id]
        return 0.0 if part.reads else scorer(question.id, part.responses(completions))

    def alone(question: Question, completion: Completion) -> float:
        # Where answers vote, it is replaced when all are there.
        return 0.0 if voting else together(question, [completion])

    loaded = Task(
        source.name,
        json.dumps([identity for part in parts for identity in part.identity]),
        splits,
        alone,
        sampling,
        together if voting else None,
    )
    check_disjoint([loaded])
    return loaded


def _common(source: HarnessSource, parts: Sequence["_Part"]) -> Sampling:
    """Return how all parts of a task are answered.

    Raises:
        SpecError: If there is no one way.
    """
    ways = list(dict.fromkeys((part.sampling, part.reads, part.scoring.votes) for part in parts))
    if len(ways) != 1:
        names = sorted({str(part.task.task_name) for part in parts})
        raise SpecError(
            f"The tasks of a group must be asked in one way, but those of {source.task!r} differ "
            f"in stop texts, limits or kind. Name them one by one under `evaluation.tasks`: "
            f"{', '.join(names)[:200]}."
        )
    return ways[0][0]


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
    scoring: HarnessScoring

    @classmethod
    def of(
        cls, task: Any, source: HarnessSource, chat: Chat, default: Sampling, grouped: bool
    ) -> "_Part":
        instances: dict[str, list[Instance]] = {}
        for instance in _with_words(_instances(task, source, chat), source):
            name = f"{task.task_name}:{instance.doc_id}" if grouped else str(instance.doc_id)
            instances.setdefault(name, []).append(instance)
        sampling = _sampling(task, next(iter(instances.values()))[0], source, default)
        scoring = HarnessScoring(task, *chosen_metric(task, source), chat, source.reasoning)
        questions = [_question(task, name, own, source) for name, own in instances.items()]
        part = cls(task, questions, instances, sampling, scoring)
        part.check(source)
        return part

    @property
    def identity(self) -> list[Any]:
        return ["lm-eval", self.task.task_name, str(self.task.VERSION), *self.scoring.identity]

    @property
    def reads(self) -> bool:
        """Whether its documents are texts that are read."""
        return self.questions[0].is_text

    def responses(self, completions: Sequence[Completion]) -> list[list[Any]]:
        """Return answers to a question as the harness has them."""
        return self.scoring.responses(completions, self.sampling)

    def judge(self, question: str, responses: Sequence[list[Any]]) -> float:
        """Return the harness's metric for answers to a question."""
        return self.scoring.judge(self.instances[question], responses)

    def check(self, source: HarnessSource) -> None:
        """Score an answer before anything is generated.

        Raises:
            SpecError: If that gives no score.
        """
        question = self.questions[0]
        if self.reads and (source.metric or source.filter):
            raise SpecError(
                f"Texts are read by `perplexity`, `kl/base` and `kl/expert` among `objectives` or "
                f"`constraints`: remove `metric` and `filter` of task {source.name!r}."
            )
        if self.reads:
            return
        rows = json.dumps([[-1.0 - i, False, 1] for i in range(len(question.pairs))])
        answer = Completion(rows if question.pairs else "0", 1, "stop")
        try:
            self.judge(question.id, self.responses([answer] * self.sampling.repeats))
        except Exception as error:
            cause = error.__cause__ or error
            reason = str(cause) or type(cause).__name__
            others = ", ".join(ensemble.name for ensemble in self.task._filters)
            raise SpecError(
                f"Task {source.name!r} must give a score to each question, but lm-eval's "
                f"{self.task.task_name!r} with metric {self.scoring.metric!r} and filter "
                f"{self.scoring.filter!r} does not: {reason.splitlines()[0]} Choose another "
                f"`metric` ({', '.join(metrics_of(self.task))}) or `filter` ({others}), or more "
                "`sampling.repeats`."
            ) from error


def _instances(task: Any, source: HarnessSource, chat: Chat) -> list[Instance]:
    task.config.repeats = 1  # how often each question is answered is the study's to say
    reads = task.OUTPUT_TYPE == _ROLLING
    template = source.chat and bool(chat.tokenizer.chat_template) and not reads
    task.set_fewshot_seed(seed=1234)  # the harness's own default
    task.build_all_requests(
        apply_chat_template=template,
        fewshot_as_multiturn=template,
        chat_template=chat.conversation if template else None,
        tokenizer_name="",
    )
    instances: list[Instance] = task.instances
    return instances


def _with_words(instances: Sequence[Instance], source: HarnessSource) -> list[Instance]:
    """Return instances without texts that have nothing to be read; say how many there were.

    Public data are not the user's to correct.

    Raises:
        SpecError: If none is left.
    """
    kept = [i for i in instances if i.request_type != _ROLLING or i.args[0].strip()]
    if instances and not kept:
        raise SpecError(f"A task's texts must have words, but all of {source.name!r} are empty.")
    if n := len(instances) - len(kept):
        logger.warning("task %r: %d empty text(s) are left out", source.name, n)
    return kept


def _question(
    task: Any, name: str, instances: Sequence[Instance], source: HarnessSource
) -> Question:
    instance = instances[0]
    if task.OUTPUT_TYPE == _ROLLING:
        cluster = _cluster(instance.doc, source)
        return Question(name, instance.args[0], "", cluster=cluster, is_text=True)
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
    return cluster_name(doc[source.cluster])


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
