"""One candidate in, objective values with their standard errors out."""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna

from ..errors import EvaluationError
from .evaluation import Answer, Backend, Constraint, Metric, ObjectiveMetric, Sampling
from .evaluation.asking import Interviewer, Progress
from .evaluation.cache import AnswerCache
from .evaluation.racing import Race
from .evaluation.rotation import Hand
from .evaluation.scored_question import ScoredQuestion
from .measurement import Measurement
from .merging import MergePlan, Params

# Standard errors by which a constraint on texts is clearly broken.
_CLEARLY = 2.0


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
        size: Weights -> bytes that a candidate's weights take as it is served. Defaults to None:
            nobody asks.
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
        size: Callable[[Mapping[str, Sequence[float]]], int] | None = None,
    ) -> None:
        self.backend, self.plan, self._size = backend, plan, size
        self._kinds = {q.task: q.kind for q in questions}
        named = [m if isinstance(m, ObjectiveMetric) else ObjectiveMetric(m) for m in metrics]
        self.metrics = [replace(metric, kinds=self._kinds) for metric in named]
        self.questions = [q for q in questions if q.kind != "read"]
        self.texts = [q for q in questions if q.kind == "read"]
        self.bounds = bounds
        self.constraints = [
            replace(c, objective=replace(c.objective, kinds=self._kinds)) for c in constraints
        ]
        base = plan.group_weights(plan.uniform(0.0))
        self._interviewer = Interviewer(backend, sampling, base, cache)
        measured = [*self.metrics, *(c.objective for c in self.constraints)]
        parents = {m.metric.parent for m in measured} - {None}
        self._parents = sorted(parent for parent in parents if parent is not None)

    @property
    def cache(self) -> AnswerCache | None:
        """Of answers."""
        return self._interviewer.cache

    @property
    def sampling(self) -> Sampling:
        """Generation settings of questions that have none of their own."""
        return self._interviewer.sampling

    @property
    def n_answers(self) -> int:
        """Answers that a candidate gives if it is asked everything."""
        return self.count_answers(range(len(self.questions)))

    def count_answers(self, places: Iterable[int]) -> int:
        """Return how many answers a candidate gives to some questions, and to all texts."""
        asked = sum(self._repeats(self.questions[place]) for place in places)
        return asked + len(self.texts)

    @property
    def clusters(self) -> list[str]:
        """Each question's cluster; none if every question is one of its own."""
        both = [(q.task, q.question) for q in self.questions]
        names = [f"{task}/{q.cluster}" if q.cluster else f"\n{q.id}" for task, q in both]
        return names if any(q.question.cluster for q in self.questions) else []

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Measure a trial's candidate and store what belongs to it as user attributes.

        Raises:
            EvaluationError: If a value is not finite; Optuna's `catch` then makes it FAIL.
        """
        ranges = self.plan.bounds(*self.bounds)
        choices = self.plan.settings.categories.items()
        params: Params = {name: trial.suggest_categorical(name, c) for name, c in choices}
        params |= {name: trial.suggest_float(name, *range_) for name, range_ in ranges.items()}
        measurement = self.measure(params)
        for key, value in measurement.attributes().items():
            trial.set_user_attr(key, value)
        for name, (violation, _) in measurement.constraints.items():
            trial.set_constraint(name, violation)
        return measurement.values

    def measure(
        self,
        params: Mapping[str, Any],
        progress: Progress | None = None,
        race: Race | Hand | None = None,
        screen: bool = False,
    ) -> Measurement:
        """Measure one candidate.

        Args:
            params: One value for each of the plan's parameter names.
            progress: Called with the number of questions answered since the last call.
            race: Says how many questions are asked. Defaults to None: all.
            screen: Whether nothing is asked of a candidate that clearly breaks a constraint on
                texts. Its measurement then has no values.

        Raises:
            EvaluationError: If a value or a standard error is not finite, or a constraint NaN.
        """
        weights = self.plan.group_weights(params)
        n_bytes = 0 if self._size is None else self._size(weights)
        merge_seconds = self.backend.apply(weights)
        start = time.perf_counter()
        told = progress or (lambda n: None)
        read, n_cached = self._interviewer.read(weights, self.texts, self._parents, told)
        read = [replace(answer, model_bytes=n_bytes) for answer in read]
        if screen and (broken := self._broken(read)):
            seconds = time.perf_counter() - start
            found = (merge_seconds, seconds, self._constraints(read))
            measurement = Measurement((), (), tuple(read), *found, n_cached=n_cached)
            return replace(measurement, pruned=True, broken=broken, n_texts=len(read))
        answers: dict[int, list[Answer]] = {}
        for block in race.blocks if race else [list(range(len(self.questions)))]:
            if race and answers and not self._goes_on(race, answers):
                break
            asked = {place: self.questions[place] for place in block}
            new, n_known = self._interviewer.ask(weights, asked, told)
            answers |= {
                place: [replace(answer, model_bytes=n_bytes) for answer in given]
                for place, given in new.items()
            }
            n_cached += n_known
        seconds = time.perf_counter() - start
        in_order = [answer for place in sorted(answers) for answer in answers[place]]
        in_order += read
        measurement = self._measurement(in_order, merge_seconds, seconds)
        pruned = race is not None and not race.is_whole(len(answers))
        return replace(measurement, n_cached=n_cached, pruned=pruned)

    def _constraints(self, answers: Sequence[Answer]) -> dict[str, tuple[float, float]]:
        """Return by how much each constraint is violated that some answers say something of."""
        tasks = {answer.task for answer in answers}
        measured = [c for c in self.constraints if any(map(c.objective.counts, tasks))]
        found = {c.name: c.estimate(answers) for c in measured}
        for name, (violation, _) in found.items():
            # A perplexity too large for a number is a violation; one that is none says nothing.
            if math.isnan(violation):
                raise EvaluationError(
                    f"A constraint must be measured, but {name!r} is no number for the answers of "
                    "this candidate."
                )
        return found

    def _broken(self, read: Sequence[Answer]) -> tuple[str, ...]:
        """Return the constraints on texts that are broken by more than their errors explain."""
        found = self._constraints(read).items()
        return tuple(
            name
            for name, (off, error) in found
            if off == math.inf or off > max(0.0, _CLEARLY * error)
        )

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
        constraints = self._constraints(answers)
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
            n_texts=len(self.texts),
        )

    def _by_task(self, answers: Sequence[Answer]) -> dict[str, tuple[float, float]]:
        """Return what each of several tasks contributes to the objectives, as it was measured."""
        tasks = list(dict.fromkeys(answer.task for answer in answers))
        metrics = list({m.metric.name: m.metric for m in self.metrics}.values())
        alone = [
            ObjectiveMetric(metric, task)
            for task in tasks
            for metric in metrics
            if self._kinds[task] in metric.kinds
        ]
        return {o.name: o.estimate(answers) for o in alone} if len(tasks) > 1 else {}

    def _check_finite(self, values: Sequence[float], errors: Sequence[float]) -> None:
        for metric, value, error in zip(self.metrics, values, errors, strict=True):
            if not (math.isfinite(value) and math.isfinite(error)):
                raise EvaluationError(
                    f"A measurement must be finite, but {metric.name} is {value} with standard "
                    f"error {error}."
                )
