"""One candidate in, objective values with their standard errors out."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import optuna

from ..errors import EvaluationError
from .evaluation import (
    Answer,
    Backend,
    Completion,
    Constraint,
    Metric,
    ObjectiveMetric,
    Question,
    Sampling,
    Task,
)
from .evaluation.cache import AnswerCache
from .evaluation.racing import Race
from .merging import MergePlan

# Called with the number of questions answered since the last call.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Measurement:
    """A candidate's measured values.

    Args:
        values: One a metric, each in its own direction and unit.
        standard_errors: Aligned with `values`.
        answers: One a question.
        merge_seconds: Time of the in-place merge.
        evaluate_seconds: Time of generation and scoring.
        constraints: Name -> by how much it is violated (kept: at most 0), and the standard error.
        by_task: With several tasks: `metric/task` -> value and standard error.
        n_cached: Answers that were known before.
        pruned: Whether it was stopped before it was asked what others are.
    """

    values: tuple[float, ...]
    standard_errors: tuple[float, ...]
    answers: tuple[Answer, ...]
    merge_seconds: float
    evaluate_seconds: float
    constraints: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    by_task: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    n_cached: int = 0
    pruned: bool = False

    def attributes(self) -> dict[str, object]:
        """Return the user attributes that every finished trial carries."""
        attributes: dict[str, object] = {
            "standard_errors": list(self.standard_errors),
            "n_questions": len(self.answers),
            "generated_tokens": sum(answer.n_tokens for answer in self.answers),
            "finish_reasons": dict(Counter(answer.finish_reason for answer in self.answers)),
            "merge_seconds": round(self.merge_seconds, 4),
            "evaluate_seconds": round(self.evaluate_seconds, 4),
        }
        if self.by_task:
            attributes["tasks"] = {name: list(pair) for name, pair in self.by_task.items()}
        if self.constraints:
            errors = {name: error for name, (_, error) in self.constraints.items()}
            attributes["constraint_errors"] = errors
        if self.n_cached:
            attributes["n_cached"] = self.n_cached
        return attributes


@dataclass(frozen=True)
class ScoredQuestion:
    """A question with what its task knows of it.

    Args:
        question: Its id begins with the task's name.
        task: Name of the task.
        score: From an answer to a number, 1 for right.
        sampling: How it is answered. Defaults to None: as the objective says.
    """

    question: Question
    task: str
    score: Callable[[Completion], float]
    sampling: Sampling | None = None


def questions_of(tasks: Sequence[Task], split: str) -> list[ScoredQuestion]:
    """Return one split's questions of all tasks; ids are prefixed by the task's name."""
    return [
        ScoredQuestion(
            Question(f"{task.name}/{q.id}", q.prompt, q.answer),
            task.name,
            partial(task.score, q),
            task.sampling,
        )
        for task in tasks
        for q in task.splits.get(split, ())  # type: ignore[call-overload]
    ]


class MergeObjective:
    """An Optuna objective: merge in place, generate, score.

    Example::

        study.optimize(MergeObjective(backend, plan, questions, metrics, Sampling(256)))

    Args:
        backend: Loaded.
        plan: The search variables; its `parameter_names` become the trial's parameters.
        questions: Asked of every candidate, in the same order.
        metrics: The objectives.
        sampling: Generation settings of questions that have none of their own.
        bounds: Range of every weight.
        constraints: What candidates must keep to. Defaults to none.
        cache: Of answers. Defaults to None: all are generated.
    """

    def __init__(  # noqa: PLR0913 - what a measurement consists of
        self,
        backend: Backend,
        plan: MergePlan,
        questions: Sequence[ScoredQuestion],
        metrics: Sequence[Metric | ObjectiveMetric],
        sampling: Sampling,
        bounds: tuple[float, float] = (0.0, 1.0),
        constraints: Sequence[Constraint] = (),
        cache: AnswerCache | None = None,
    ) -> None:
        self.backend, self.plan = backend, plan
        self.metrics = [
            m if isinstance(m, ObjectiveMetric) else ObjectiveMetric(m) for m in metrics
        ]
        self.questions, self.sampling, self.bounds = questions, sampling, bounds
        self.constraints, self.cache = constraints, cache

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Measure a trial's candidate and store what belongs to it as user attributes.

        Raises:
            EvaluationError: If a value is not finite; Optuna's `catch` then makes it FAIL.
        """
        ranges = self.plan.bounds(*self.bounds)
        params = {name: trial.suggest_float(name, *range_) for name, range_ in ranges.items()}
        measurement = self.measure(params)
        for key, value in measurement.attributes().items():
            trial.set_user_attr(key, value)
        for name, (violation, _) in measurement.constraints.items():
            trial.set_constraint(name, violation)
        return measurement.values

    def measure(
        self,
        params: Mapping[str, float],
        progress: Progress | None = None,
        race: Race | None = None,
    ) -> Measurement:
        """Measure one candidate.

        Args:
            params: One weight for each of the plan's parameter names.
            progress: Called with the number of questions answered since the last call.
            race: Says how many questions are asked. Defaults to None: all.

        Raises:
            EvaluationError: If a value or a standard error is not finite.
        """
        weights = self.plan.group_weights(params)
        merge_seconds = self.backend.apply(weights)
        start = time.perf_counter()
        answers: dict[int, Answer] = {}
        n_cached = 0
        for block in race.blocks if race else [list(range(len(self.questions)))]:
            if race and answers and not self._goes_on(race, answers):
                break
            new, n_known = self._ask(weights, block, progress or (lambda n: None))
            answers.update(new)
            n_cached += n_known
        seconds = time.perf_counter() - start
        in_order = [answers[place] for place in sorted(answers)]
        measurement = self._measurement(in_order, merge_seconds, seconds)
        pruned = race is not None and not race.is_whole(len(answers))
        return replace(measurement, n_cached=n_cached, pruned=pruned)

    def numbers(self, answers: Iterable[Answer]) -> list[list[float | None]]:
        """Return what each question's answer counts in each objective; None if not asked."""
        by_id = {answer.question_id: answer for answer in answers}
        known = [by_id.get(scored.question.id) for scored in self.questions]
        return [
            [None if answer is None else m.metric.per_answer(answer) for answer in known]
            for m in self.metrics
        ]

    def _goes_on(self, race: Race, answers: Mapping[int, Answer]) -> bool:
        numbers = np.array([m.metric.numbers(list(answers.values())) for m in self.metrics])
        return race.goes_on(list(answers), numbers)

    def _measurement(
        self, answers: Sequence[Answer], merge_seconds: float, seconds: float
    ) -> Measurement:
        values, errors = zip(*(m.estimate(answers) for m in self.metrics), strict=True)
        self._check_finite(values, errors)
        constraints = {c.name: c.estimate(answers) for c in self.constraints}
        by_task = self._by_task(answers)
        return Measurement(
            values, errors, tuple(answers), merge_seconds, seconds, constraints, by_task
        )

    def _by_task(self, answers: Sequence[Answer]) -> dict[str, tuple[float, float]]:
        """Return what each of several tasks contributes to the objectives, as it was measured."""
        tasks = list(dict.fromkeys(answer.task for answer in answers))
        metrics = list({m.metric.name: m.metric for m in self.metrics}.values())
        alone = [ObjectiveMetric(metric, task) for task in tasks for metric in metrics]
        return {o.name: o.estimate(answers) for o in alone} if len(tasks) > 1 else {}

    def _ask(
        self, weights: Mapping[str, Sequence[float]], block: Sequence[int], progress: Progress
    ) -> tuple[dict[int, Answer], int]:
        """Return the answers to some questions, and how many of them were known."""
        answers: dict[int, Answer] = {}
        n_cached = 0
        for sampling, places in _by_sampling(self.questions, block, self.sampling).items():
            prompts = [self.questions[place].question.prompt for place in places]
            completions, n_known = self._generate(weights, prompts, sampling, progress)
            for place, completion in zip(places, completions, strict=True):
                answers[place] = _scored(self.questions[place], completion)
            n_cached += n_known
        return {place: answers[place] for place in block}, n_cached

    def _generate(
        self,
        weights: Mapping[str, Sequence[float]],
        prompts: Sequence[str],
        sampling: Sampling,
        progress: Progress,
    ) -> tuple[list[Completion], int]:
        cache = self.cache
        if cache is None:
            return self.backend.generate(prompts, sampling, lambda i, c: progress(1)), 0
        key = cache.candidate(weights, sampling)
        known = cache.known(key, prompts)
        if known:
            progress(len(known))
        missing = [i for i in range(len(prompts)) if i not in known]

        def finished(index: int, completion: Completion) -> None:
            cache.keep(key, prompts[missing[index]], completion)
            progress(1)

        try:
            new = self.backend.generate([prompts[i] for i in missing], sampling, finished)
        finally:  # what was answered before an interruption is kept
            cache.flush()
        everything = {**known, **dict(zip(missing, new, strict=True))}
        return [everything[i] for i in range(len(prompts))], len(known)

    def _check_finite(self, values: Sequence[float], errors: Sequence[float]) -> None:
        for metric, value, error in zip(self.metrics, values, errors, strict=True):
            if not (math.isfinite(value) and math.isfinite(error)):
                raise EvaluationError(
                    f"A measurement must be finite, but {metric.name} is {value} with standard "
                    f"error {error}."
                )


def _by_sampling(
    questions: Sequence[ScoredQuestion], block: Sequence[int], default: Sampling
) -> dict[Sampling, list[int]]:
    places: dict[Sampling, list[int]] = {}
    for place in block:
        places.setdefault(questions[place].sampling or default, []).append(place)
    return places


def _scored(scored: ScoredQuestion, completion: Completion) -> Answer:
    return Answer(
        scored.question.id,
        scored.task,
        scored.score(completion),
        completion.n_tokens,
        completion.finish_reason,
        completion.text,
        completion.n_think_tokens,
        round(completion.seconds, 6),
    )
