"""Generative tasks of lm-evaluation-harness: its prompts, filters and metrics, our engines.

`load_harness_task` turns a task of the harness into a `Task`: what is asked, and how an answer's
text is scored, are the harness's own doing. `HarnessLM` is the other way round: one of our engines
as a model of the harness, for `lm_eval.simple_evaluate`. Both hand the same texts to the same
code, so a question's score is the same either way, and the same as with the harness's own `hf`
model where that generates the same tokens. Imported only where such a task is used.
"""

import copy
import functools
import hashlib
import json
import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.tasks import TaskManager

from ....errors import EvaluationError, SpecError
from ..backends.backend import Backend, Completion, Sampling, final_answer
from ..backends.chat import Chat
from . import Question, Task
from .task import Split, check_disjoint, check_splits, divide, without_copies


@dataclass(frozen=True)
class HarnessSource:
    """A task of the harness, and what of it a study chooses.

    Args:
        name: Names the task in tables and errors.
        task: Registered name in the harness, or path of a task's YAML file.
        fractions: Share of its test (else validation) questions in each split.
        dataset: Where its data lie: a directory, or one file a data split of the task, instead of
            the hub. Defaults to None: the hub, or what the hub's cache holds.
        metric: The one that is the score. Defaults to None: the task's first.
        filter: Of the task. Defaults to None: the last, usually the most lenient.
        n_fewshot: Defaults to None: the task's.
        chat: Whether the base's chat template is applied.
        max_new_tokens: Defaults to None: the task's, or else the study's.
        stop: Texts that end an answer. Defaults to None: the task's.
        reasoning: Whether metrics see the reasoning before `</think>` or what follows alone.
        cluster: The field of its data that questions which belong together share. Defaults to
            None: none do.
    """

    name: str
    task: str
    fractions: Mapping[Split, float]
    dataset: str | Mapping[str, str] | None = None
    metric: str | None = None
    filter: str | None = None
    n_fewshot: int | None = None
    chat: bool = True
    max_new_tokens: int | None = None
    stop: tuple[str, ...] | None = None
    reasoning: bool = False
    cluster: str | None = None


def load_harness_task(
    source: HarnessSource, base: Path, default: Sampling | int, template: str | None = None
) -> Task:
    """Load a task of the harness.

    Args:
        source: Which, and how.
        base: Directory of the base, whose tokenizer and chat template render the prompts.
        default: How answers are drawn, or their limit alone, which holds where neither the source
            nor the task says.
        template: Source of another chat template. Defaults to None: the base's.

    Raises:
        SpecError: If the task is unknown, not generative, or its data are not at hand.
    """
    chat = Chat(base, template=template)
    default = Sampling(default) if isinstance(default, int) else default
    with _seeded():
        task = _open(source)
        instances = _instances(task, source, chat)
    sampling = _sampling(instances[0].args[1], source, default)
    scoring = _Scoring(task, *_metric(task, source), chat, source.reasoning)
    by_id = {str(instance.doc_id): instance for instance in instances}
    questions = [_question(task, instance, source) for instance in instances]
    questions = without_copies(questions, f"task {source.name!r}")
    divided = divide(questions, lambda q: q.content_hash, source.fractions)
    splits = {split: tuple(members) for split, members in divided.items()}
    check_splits(source.name, splits)
    loaded = Task(
        source.name,
        json.dumps(["lm-eval", task.task_name, str(task.VERSION), *scoring.identity]),
        splits,
        lambda question, completion: scoring.score(by_id[question.id], completion, sampling),
        sampling,
    )
    check_disjoint([loaded])
    return loaded


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed as the harness does: some tasks shuffle, and every worker must ask the same."""
    state, numpy_state = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(1234)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1234)
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def _open(source: HarnessSource) -> Any:
    try:
        path = _path(source.task)
        with tempfile.TemporaryDirectory() as folder:
            spec = _changed(source, path, Path(folder))
            # A file needs no list of all tasks.
            manager = TaskManager(include_defaults=False)
            (task,) = manager.load(str(spec))["tasks"].values()
    except (KeyError, ValueError) as error:
        raise SpecError(
            f"Task {source.name!r} must be one task of lm-eval, but {source.task!r} is not: "
            f"{error}. `lm-eval ls tasks` lists them."
        ) from error
    except Exception as error:  # whatever a data set's loader raises
        raise SpecError(
            f"The data of task {source.name!r} (lm-eval's {source.task!r}) could not be loaded: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} Give "
            "`dataset` a local path, or load it once where the hub can be reached."
        ) from error
    if task.OUTPUT_TYPE != "generate_until":
        raise SpecError(
            f"Tasks must generate answers, but lm-eval's {source.task!r} compares "
            f"likelihoods ({task.OUTPUT_TYPE}). Choose a generative variant."
        )
    return task


def _path(task: str) -> Path:
    """Return the file of a task.

    Raises:
        KeyError: If the harness has none of this name.
    """
    path = Path(task)
    return path if path.is_file() else Path(_index()[task].yaml_path)


@functools.cache
def _index() -> Mapping[str, Any]:
    """Return the harness's list of its tasks, which takes seconds to make."""
    index: Mapping[str, Any] = TaskManager().task_index
    return index


def _changed(source: HarnessSource, path: Path, folder: Path) -> Path:
    """Return the task's file, or one that includes it and changes it."""
    changes = _data(source.dataset)
    if source.n_fewshot is not None:
        changes["num_fewshot"] = source.n_fewshot
    if not changes:
        return path
    changed = folder / f"{path.stem}.yaml"
    changed.write_text(yaml.safe_dump({"include": str(path.resolve()), **changes}))
    return changed


def _data(dataset: str | Mapping[str, str] | None) -> dict[str, Any]:
    """Return the configuration that replaces the hub by local files."""
    if dataset is None:
        return {}
    if isinstance(dataset, str):
        return {"dataset_path": dataset, "dataset_name": None}
    kinds = {Path(path).suffix.removeprefix(".") for path in dataset.values()}
    kind = "parquet" if kinds == {"parquet"} else "csv" if kinds == {"csv"} else "json"
    files = dict(dataset)
    return {"dataset_path": kind, "dataset_name": None, "dataset_kwargs": {"data_files": files}}


def _instances(task: Any, source: HarnessSource, chat: Chat) -> list[Instance]:
    task.config.repeats = 1  # answers are greedy
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


def _question(task: Any, instance: Instance, source: HarnessSource) -> Question:
    target = json.dumps(task.doc_to_target(instance.doc), default=str)
    content = str(task.doc_to_text(instance.doc))
    cluster = ""
    if source.cluster is not None:
        if source.cluster not in instance.doc:
            raise SpecError(
                f"`cluster` of task {source.name!r} must be a field of its data "
                f"({', '.join(instance.doc)}), but got {source.cluster!r}."
            )
        cluster = str(instance.doc[source.cluster])
    return Question(str(instance.doc_id), instance.args[0], target, content, cluster)


def _sampling(arguments: dict[str, Any], source: HarnessSource, default: Sampling) -> Sampling:
    chosen = normalize_gen_kwargs(arguments, default.max_new_tokens)
    stop = source.stop if source.stop is not None else tuple(chosen["until"])
    n_tokens = source.max_new_tokens or chosen["max_gen_toks"]
    texts = tuple(text for text in stop if text)
    return replace(default, max_new_tokens=n_tokens, stop=texts, chat=False)


def _metric(task: Any, source: HarnessSource) -> tuple[str, str]:
    """Return the names of metric and filter.

    Raises:
        SpecError: If the task has none of that name.
    """
    metrics = [entry["metric"] for entry in task.config.metric_list or ()]
    filters = [ensemble.name for ensemble in task._filters]
    chosen = {}
    for kind, names, name, place in (
        ("metric", metrics, source.metric, 0),
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
        return [self.metric, self.filter, self.reasoning]

    def score(self, instance: Instance, completion: Completion, sampling: Sampling) -> float:
        """Return the harness's metric for one answer.

        Raises:
            EvaluationError: If it is not one number within [0, 1] an answer.
        """
        answered = copy.copy(instance)
        answered.resps = [harness_text(completion, sampling, self.chat, self.reasoning)]
        answered.filtered_resps = {}
        for ensemble in self.task._filters:
            ensemble.apply([answered])
        results = self.task.process_results(answered.doc, [answered.filtered_resps[self.filter]])
        score = results.get(self.metric)
        if not isinstance(score, int | float) or not 0 <= score <= 1:
            raise EvaluationError(
                f"A metric must give one number within [0, 1] an answer, but {self.metric!r} of "
                f"lm-eval's task {self.task.task_name!r} gives {score!r:.40}. Choose another "
                "`metric`."
            )
        return float(score)


def harness_text(completion: Completion, sampling: Sampling, chat: Chat, reasoning: bool) -> str:
    """Return an answer as the harness's own models return it: no special tokens, no stop text.

    Without the reasoning, an answer that was cut inside it is empty.
    """
    text = completion.text if reasoning else final_answer(completion) or ""
    if text != completion.text:
        text = text.lstrip()
    for token in chat.tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return str(postprocess_generated_text(text, list(sampling.stop), None))


class HarnessLM(LM):  # type: ignore[misc]
    """One of our engines, with the weights it has now, as a model of the harness.

    Example::

        backend.apply(plan.group_weights(params))
        lm_eval.simple_evaluate(HarnessLM(backend, base), tasks=["gsm8k_cot_zeroshot"])

    Args:
        backend: Loaded.
        base: Directory of the base.
        max_new_tokens: Where a task does not say.
        reasoning: Whether metrics see the reasoning before `</think>`.
    """

    def __init__(
        self, backend: Backend, base: Path, max_new_tokens: int = 256, reasoning: bool = True
    ) -> None:
        super().__init__()
        self._backend, self._chat = backend, Chat(base)
        self._max_new_tokens, self._reasoning = max_new_tokens, reasoning

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer requests greedily; the answers to one kind of request are generated together."""
        groups: dict[Sampling, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(self._sampling_of(request), []).append(place)
        texts: dict[int, str] = {}
        for sampling, places in groups.items():
            prompts = [requests[place].args[0] for place in places]
            for place, completion in zip(
                places, self._backend.generate(prompts, sampling), strict=True
            ):
                texts[place] = harness_text(completion, sampling, self._chat, self._reasoning)
        return [texts[place] for place in range(len(requests))]

    def _sampling_of(self, request: Instance) -> Sampling:
        chosen = normalize_gen_kwargs(request.args[1], self._max_new_tokens)
        stop = handle_stop_sequences(chosen["until"], eos=None)
        return Sampling(chosen["max_gen_toks"], tuple(text for text in stop if text), chat=False)

    @property
    def tokenizer_name(self) -> str:
        """A name for the harness's cache of prompts."""
        template = str(self._chat.tokenizer.chat_template)
        return hashlib.sha256(template.encode()).hexdigest()[:16]

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the base's chat template."""
        return self._chat.tokenizer.chat_template or ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as one text."""
        return self._chat.conversation(chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Raise: engines generate."""
        raise _not_generative()

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Raise: engines generate."""
        raise _not_generative()


def _not_generative() -> EvaluationError:
    return EvaluationError(
        "Engines generate answers and compare no likelihoods. Choose a generative task."
    )
