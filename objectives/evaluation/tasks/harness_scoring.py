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

    def score(
        self, instances: Sequence[Instance], completions: Sequence[Completion], sampling: Sampling
    ) -> float:
        """Return the harness's metric for answers; 1 less it, where lower is better.

        Args:
            instances: What was asked: one text, or one a choice.
            completions: One answer, or all repeats where they vote.
            sampling: How they were made.

        Raises:
            EvaluationError: If it is not one number within [0, 1].
        """
        answered = [copy.copy(instance) for instance in instances]
        given = zip(answered, self._responses(completions, sampling), strict=True)
        for instance, responses in given:
            instance.resps, instance.filtered_resps = responses, {}
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

    def _responses(self, completions: Sequence[Completion], sampling: Sampling) -> list[list[Any]]:
        """Return the harness's responses to each instance."""
        if sampling.generates:
            shown = (sampling, self.chat, self.reasoning)
            return [[harness_text(completion, *shown) for completion in completions]]
        likelihoods = likelihoods_in(completions[0].text)
        return [[(each.total, each.is_greedy)] for each in likelihoods]
