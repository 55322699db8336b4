"""One candidate in, objective values with their standard errors out."""

import json
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
    Finished,
    Metric,
    ObjectiveMetric,
    Question,
    Sampling,
    Task,
)
from .evaluation.backends.backend import as_answer
from .evaluation.backends.likelihood import Likelihood, likelihoods_in
from .evaluation.cache import AnswerCache
from .evaluation.diagnosis import signs_of
from .evaluation.racing import Race
from .evaluation.rotation import Hand
from .merging import MergePlan

# Called with the number of questions answered since the last call.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Measurement:
    """A candidate's measured values.

    Args:
        values: One a metric, each in its own direction and unit.
        standard_errors: Aligned with `values`.
        answers: One per question, or several; those of a question follow one another.
        merge_seconds: Time of the in-place merge.
        evaluate_seconds: Time of generation and scoring.
        constraints: Name -> by how much it is violated (kept: at most 0), and the standard error.
        by_task: With several tasks: `metric/task` -> value and standard error.
        n_cached: Answers that were known before.
        pruned: Whether it was stopped before it was asked what others are.
        components: Metric -> variance between questions and within one, where they are repeated.
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
    components: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def n_questions(self) -> int:
        """Different questions answered."""
        return len({answer.question_id for answer in self.answers})

    def attributes(self) -> dict[str, object]:
        """Return the user attributes that every finished trial carries."""
        attributes: dict[str, object] = {
            "standard_errors": list(self.standard_errors),
            "n_questions": self.n_questions,
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
        signs = Counter(sign for answer in self.answers for sign in answer.signs)
        if signs:
            attributes["diagnosis"] = {s: n / len(self.answers) for s, n in sorted(signs.items())}
        if len(self.answers) > self.n_questions:
            attributes["n_answers"] = len(self.answers)
        if self.components:
            attributes["variances"] = {name: list(pair) for name, pair in self.components.items()}
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
            replace(q, id=f"{task.name}/{q.id}"),
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
        self._silent = frozenset(q.task for q in questions if q.question.pairs)
        named = [m if isinstance(m, ObjectiveMetric) else ObjectiveMetric(m) for m in metrics]
        self.metrics = [replace(metric, silent=self._silent) for metric in named]
        self.questions, self.sampling, self.bounds = questions, sampling, bounds
        limited = [replace(c.objective, silent=self._silent) for c in constraints]
        self.constraints = [
            replace(c, objective=o) for c, o in zip(constraints, limited, strict=True)
        ]
        self.cache = cache

    @property
    def n_answers(self) -> int:
        """Answers that a candidate gives if it is asked everything."""
        return self.count_answers(range(len(self.questions)))

    def count_answers(self, places: Iterable[int]) -> int:
        """Return how many answers a candidate gives to some questions."""
        return sum(self._repeats(self.questions[place]) for place in places)

    @property
    def clusters(self) -> list[str]:
        """Each question's cluster; none if every question is one of its own."""
        names = [f"{q.task}/{q.question.cluster}" for q in self.questions]
        return names if any(q.question.cluster for q in self.questions) else []

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
        race: Race | Hand | None = None,
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
        answers: dict[int, list[Answer]] = {}
        n_cached = 0
        for block in race.blocks if race else [list(range(len(self.questions)))]:
            if race and answers and not self._goes_on(race, answers):
                break
            new, n_known = self._ask(weights, block, progress or (lambda n: None))
            answers.update(new)
            n_cached += n_known
        seconds = time.perf_counter() - start
        in_order = [answer for place in sorted(answers) for answer in answers[place]]
        measurement = self._measurement(in_order, merge_seconds, seconds)
        pruned = race is not None and not race.is_whole(len(answers))
        return replace(measurement, n_cached=n_cached, pruned=pruned)

    def numbers(self, answers: Iterable[Answer]) -> list[list[float | None]]:
        """Return what each question counts in each objective, repeats' mean; None if not asked."""
        by_id: dict[str, list[Answer]] = {}
        for answer in answers:
            by_id.setdefault(answer.question_id, []).append(answer)
        known = [by_id.get(scored.question.id) for scored in self.questions]
        return [[m.question_mean(repeats) for repeats in known] for m in self.metrics]

    def _goes_on(self, race: Race | Hand, answers: Mapping[int, Sequence[Answer]]) -> bool:
        means = [[m.question_mean(repeats) for repeats in answers.values()] for m in self.metrics]
        return race.goes_on(list(answers), np.array(means, dtype=np.float64))

    def _repeats(self, scored: ScoredQuestion) -> int:
        return (scored.sampling or self.sampling).repeats

    def _measurement(
        self, answers: Sequence[Answer], merge_seconds: float, seconds: float
    ) -> Measurement:
        values, errors = zip(*(m.estimate(answers) for m in self.metrics), strict=True)
        self._check_finite(values, errors)
        constraints = {c.name: c.estimate(answers) for c in self.constraints}
        by_task = self._by_task(answers)
        parts = {m.name: m.components(answers) for m in self.metrics}
        return Measurement(
            values,
            errors,
            tuple(answers),
            merge_seconds,
            seconds,
            constraints,
            by_task,
            components={n: (p.between, p.within) for n, p in parts.items() if p is not None},
        )

    def _by_task(self, answers: Sequence[Answer]) -> dict[str, tuple[float, float]]:
        """Return what each of several tasks contributes to the objectives, as it was measured."""
        tasks = list(dict.fromkeys(answer.task for answer in answers))
        metrics = list({m.metric.name: m.metric for m in self.metrics}.values())
        alone = [
            ObjectiveMetric(metric, task)
            for task in tasks
            for metric in metrics
            if not (metric.of_generation and task in self._silent)
        ]
        return {o.name: o.estimate(answers) for o in alone} if len(tasks) > 1 else {}

    def _ask(
        self, weights: Mapping[str, Sequence[float]], block: Sequence[int], progress: Progress
    ) -> tuple[dict[int, list[Answer]], int]:
        """Return the answers to some questions, and how many of them were known."""
        answers: dict[int, list[Answer]] = {place: [] for place in block}
        n_cached = 0
        for sampling, places in _by_sampling(self.questions, block, self.sampling).items():
            asked = [(place, repeat) for place in places for repeat in range(sampling.repeats)]
            answer = self._generate if sampling.generates else self._compare
            completions, n_known = answer(weights, asked, sampling, progress)
            for (place, repeat), completion in zip(asked, completions, strict=True):
                answers[place].append(_scored(self.questions[place], completion, repeat))
            n_cached += n_known
        return answers, n_cached

    def _generate(
        self,
        weights: Mapping[str, Sequence[float]],
        asked: Sequence[tuple[int, int]],
        sampling: Sampling,
        progress: Progress,
    ) -> tuple[list[Completion], int]:
        """Return the answers to questions, given by place and repeat, and how many were known."""
        questions = [(self.questions[place].question, repeat) for place, repeat in asked]
        prompts = [question.prompt for question, _ in questions]
        seeds: list[int] = []
        if sampling.is_random:
            seeds = [sampling.seed_of(question.id, repeat) for question, repeat in questions]
        cache = self.cache
        if cache is None:
            return self._engine_answers(prompts, sampling, lambda i, c: progress(1), seeds), 0
        key = cache.candidate(weights, sampling)
        known = cache.known(key, prompts, seeds)
        if known:
            progress(len(known))
        missing = [i for i in range(len(prompts)) if i not in known]

        def finished(index: int, completion: Completion) -> None:
            place = missing[index]
            cache.keep(key, prompts[place], completion, seeds[place] if seeds else None)
            progress(1)

        try:
            left = [seeds[i] for i in missing] if seeds else []
            new = self._engine_answers([prompts[i] for i in missing], sampling, finished, left)
        finally:  # what was answered before an interruption is kept
            cache.flush()
        everything = {**known, **dict(zip(missing, new, strict=True))}
        return [everything[i] for i in range(len(prompts))], len(known)

    def _compare(
        self,
        weights: Mapping[str, Sequence[float]],
        asked: Sequence[tuple[int, int]],
        sampling: Sampling,
        progress: Progress,
    ) -> tuple[list[Completion], int]:
        """Return likelihoods as answers of no tokens, and how many questions' were known."""
        pairs = [self.questions[place].question.pairs for place, _ in asked]
        flat = list(dict.fromkeys(pair for own in pairs for pair in own))
        cache = self.cache
        key = cache.candidate(weights, sampling) if cache else b""
        texts = [json.dumps(pair) for pair in flat]
        known = cache.known(key, texts) if cache else {}
        missing = [i for i in range(len(flat)) if i not in known]

        def finished(index: int, likelihood: Likelihood) -> None:
            if cache:
                cache.keep(key, texts[missing[index]], as_answer([likelihood]))

        try:
            new = self.backend.loglikelihood([flat[i] for i in missing], finished)
        finally:
            if cache:
                cache.flush()
        told = {flat[i]: likelihoods_in(completion.text)[0] for i, completion in known.items()}
        told |= {flat[i]: likelihood for i, likelihood in zip(missing, new, strict=True)}
        progress(len(asked))
        unknown = {flat[i] for i in missing}
        n_known = sum(not unknown.intersection(own) for own in pairs)
        return [as_answer([told[pair] for pair in own]) for own in pairs], n_known

    def _engine_answers(
        self, prompts: list[str], sampling: Sampling, finished: Finished, seeds: list[int]
    ) -> list[Completion]:
        if not seeds:
            return self.backend.generate(prompts, sampling, finished)
        return self.backend.generate(prompts, sampling, finished, seeds)

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


def _scored(scored: ScoredQuestion, completion: Completion, repeat: int) -> Answer:
    return Answer(
        scored.question.id,
        scored.task,
        scored.score(completion),
        completion.n_tokens,
        completion.finish_reason,
        completion.text,
        completion.n_think_tokens,
        round(completion.seconds, 6),
        repeat,
        scored.question.cluster,
        () if scored.question.pairs else signs_of(completion, scored.question.prompt),
    )
