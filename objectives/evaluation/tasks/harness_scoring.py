"""How lm-evaluation-harness scores answers: its filters and metrics, of one task."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance

from ....errors import EvaluationError, SpecError
from ..backends.backend import Completion, Sampling
from ..backends.chat import Chat
from ..backends.likelihood import likelihoods_in
from .harness_files import HarnessSource
from .harness_lm import harness_text

# Filters that look at all repeats of a question.
_TOGETHER = ("majority_vote", "take_first_k")


def metrics_of(task: Any) -> list[str]:
    """Return the names of a task's metrics, those that are functions too."""
    return [getattr(name, "__name__", str(name)) for name in task._metric_fn_list]


def chosen_metric(task: Any, source: HarnessSource) -> tuple[str, str]:
    """Return the names of metric and filter.

    Raises:
        SpecError: If the task has none of that name.
    """
    filters = [ensemble.name for ensemble in task._filters]
    chosen = {}
    for kind, names, name, place in (
        ("metric", metrics_of(task), source.metric, 0),
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
class HarnessScoring:
    """One metric of a task, behind one filter.

    Args:
        task: The harness's own.
        metric: Its name.
        filter: The same.
        chat: Whose special tokens are no part of an answer.
        reasoning: Whether the metric sees the reasoning too.
    """

    task: Any
    metric: str
    filter: str
    chat: Chat
    reasoning: bool

    @property
    def identity(self) -> list[Any]:
        """What decides a score."""
        return [self.metric, self.filter, self.reasoning, *(["turned"] if self.is_turned else [])]

    @property
    def votes(self) -> bool:
        """Whether the filter looks at all repeats of a question at once."""
        for entry in self.task.config.filter_list or ():
            if entry["name"] == self.filter:
                return any(each["function"] in _TOGETHER for each in entry["filter"])
        return False

    @property
    def is_turned(self) -> bool:
        """Whether the metric is an error rate: what is left of it is the score."""
        known = self.task.higher_is_better()
        return known.get(self.metric, True) is False

    def judge(self, instances: Sequence[Instance], responses: Sequence[list[Any]]) -> float:
        """Return the harness's metric for answers; 1 less it, where lower is better.

        Runs what others wrote on what a model wrote: it may take any time, or end the process.

        Args:
            instances: What was asked: one text, or one a choice.
            responses: From `responses`, one list an instance.

        Raises:
            EvaluationError: If it is not one number within [0, 1].
        """
        try:
            score = self._results(instances, responses).get(self.metric)
        except Exception as error:  # whatever filters and metrics raise
            if isinstance(error, MemoryError | RecursionError):
                raise
            raise EvaluationError(
                f"A metric must give a number for any answer, but {self.metric!r} of lm-eval's "
                f"task {self.task.task_name!r} fails: {type(error).__name__}: {error}."
            ) from error
        if not isinstance(score, int | float | np.number | np.bool_) or not 0 <= score <= 1:
            raise EvaluationError(
                f"A metric must give one number within [0, 1] an answer, but {self.metric!r} of "
                f"lm-eval's task {self.task.task_name!r} gives {score!r:.40}. Choose another "
                "`metric`."
            )
        return 1.0 - float(score) if self.is_turned else float(score)

    def _results(
        self, instances: Sequence[Instance], responses: Sequence[list[Any]]
    ) -> dict[str, Any]:
        """Return all of the harness's metrics."""
        answered = [copy.copy(instance) for instance in instances]
        for instance, given in zip(answered, responses, strict=True):
            # Likelihoods are pairs; JSON, through which they came, has none.
            instance.resps = [tuple(x) if isinstance(x, list) else x for x in given]
            instance.filtered_resps = {}
        ensemble = next(e for e in self.task._filters if e.name == self.filter)
        ensemble.apply(answered)
        filtered = [instance.filtered_resps[self.filter] for instance in answered]
        results: dict[str, Any] = self.task.process_results(answered[0].doc, filtered)
        return results

    def responses(self, completions: Sequence[Completion], sampling: Sampling) -> list[list[Any]]:
        """Return answers as the harness has them, one list an instance.

        Args:
            completions: One answer, or all repeats where they vote.
            sampling: How they were made.
        """
        if sampling.generates:
            shown = (sampling, self.chat, self.reasoning)
            return [[harness_text(completion, *shown) for completion in completions]]
        likelihoods = likelihoods_in(completions[0].text)
        return [[(each.total, each.is_greedy)] for each in likelihoods]
