"""One candidate in, objective values with their standard errors out."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import optuna

from ..errors import EvaluationError
from .evaluation import SCORERS, Answer, Backend, Metric, Progress, Question, Sampling, Task
from .merging import MergePlan


@dataclass(frozen=True)
class Measurement:
    """A candidate's measured values.

    Args:
        values: One a metric, each in its own direction and unit.
        standard_errors: Aligned with `values`.
        answers: One a question.
        merge_seconds: Time of the in-place merge.
        evaluate_seconds: Time of generation and scoring.
    """

    values: tuple[float, ...]
    standard_errors: tuple[float, ...]
    answers: tuple[Answer, ...]
    merge_seconds: float
    evaluate_seconds: float

    def attributes(self) -> dict[str, object]:
        """Return the user attributes that every finished trial carries."""
        return {
            "standard_errors": list(self.standard_errors),
            "n_questions": len(self.answers),
            "generated_tokens": sum(answer.n_tokens for answer in self.answers),
            "finish_reasons": dict(Counter(answer.finish_reason for answer in self.answers)),
            "merge_seconds": round(self.merge_seconds, 4),
            "evaluate_seconds": round(self.evaluate_seconds, 4),
        }


@dataclass(frozen=True)
class ScoredQuestion:
    """A question with the scorer of its task."""

    question: Question
    is_correct: Callable[[str], bool]


def questions_of(tasks: Sequence[Task], split: str) -> list[ScoredQuestion]:
    """Return one split's questions of all tasks; ids are prefixed by the task's name."""
    return [
        ScoredQuestion(
            Question(f"{task.name}/{q.id}", q.prompt, q.answer),
            lambda text, q=q, scorer=SCORERS[task.scorer]: scorer(text, q.answer),  # type: ignore[misc]
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
        sampling: Generation settings.
        bounds: Range of every weight.
    """

    def __init__(
        self,
        backend: Backend,
        plan: MergePlan,
        questions: Sequence[ScoredQuestion],
        metrics: Sequence[Metric],
        sampling: Sampling,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.backend, self.plan, self.metrics = backend, plan, metrics
        self.questions, self.sampling, self.bounds = questions, sampling, bounds

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Measure a trial's candidate and store what belongs to it as user attributes.

        Raises:
            EvaluationError: If a value is not finite; Optuna's `catch` then makes it FAIL.
        """
        params = {n: trial.suggest_float(n, *self.bounds) for n in self.plan.parameter_names}
        measurement = self.measure(params)
        for key, value in measurement.attributes().items():
            trial.set_user_attr(key, value)
        return measurement.values

    def measure(
        self, params: Mapping[str, float], progress: Progress | None = None
    ) -> Measurement:
        """Measure one candidate.

        Args:
            params: One weight for each of the plan's parameter names.
            progress: Called with the number of questions answered since the last call.

        Raises:
            EvaluationError: If a value or a standard error is not finite.
        """
        merge_seconds = self.backend.apply(self.plan.group_weights(params))
        start = time.perf_counter()
        prompts = [scored.question.prompt for scored in self.questions]
        completions = self.backend.generate(prompts, self.sampling, progress)
        answers = tuple(
            Answer(s.question.id, s.is_correct(c.text), c.n_tokens, c.finish_reason, c.text)
            for s, c in zip(self.questions, completions, strict=True)
        )
        seconds = time.perf_counter() - start
        values, errors = zip(*(m.estimate(answers) for m in self.metrics), strict=True)
        self._check_finite(values, errors)
        return Measurement(values, errors, answers, merge_seconds, seconds)

    def _check_finite(self, values: Sequence[float], errors: Sequence[float]) -> None:
        for metric, value, error in zip(self.metrics, values, errors, strict=True):
            if not (math.isfinite(value) and math.isfinite(error)):
                raise EvaluationError(
                    f"A measurement must be finite, but {metric.name} is {value} with standard "
                    f"error {error}."
                )
