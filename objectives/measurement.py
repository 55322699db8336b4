"""What one candidate measured, and the attributes that its trial carries."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .evaluation import Answer


@dataclass(frozen=True)
class Measurement:
    """A candidate's measured values.

    Args:
        values: One a metric, each in its own direction and unit.
        standard_errors: Aligned with `values`.
        answers: One per question, or several; those of a question follow one another. What was
            read comes last.
        merge_seconds: Time of the in-place merge.
        evaluate_seconds: Time of generation and scoring.
        constraints: Name -> by how much it is violated (kept: at most 0), and the standard error.
        by_task: With several tasks: `metric/task` -> value and standard error.
        n_cached: Answers that were known before.
        pruned: Whether it was stopped before it was asked what others are.
        components: Metric -> variance between questions and within one, where they are repeated.
        broken: Constraints that it broke, for which it was asked nothing and has no values.
        n_texts: Of `answers`, how many were read.
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
    broken: tuple[str, ...] = ()
    n_texts: int = 0

    @property
    def n_questions(self) -> int:
        """Different questions answered; texts, where there is nothing but texts."""
        n_asked = len({answer.question_id for answer in self.answers}) - self.n_texts
        return n_asked if n_asked or self.broken else self.n_texts

    def attributes(self) -> dict[str, object]:
        """Return the user attributes that every finished trial carries."""
        made = [answer for answer in self.answers if answer.n_tokens]
        attributes: dict[str, object] = {
            "standard_errors": list(self.standard_errors),
            "n_questions": self.n_questions,
            "generated_tokens": sum(answer.n_tokens for answer in self.answers),
            "finish_reasons": dict(Counter(answer.finish_reason for answer in made)),
            "merge_seconds": round(self.merge_seconds, 4),
            "evaluate_seconds": round(self.evaluate_seconds, 4),
        }
        if self.by_task:
            attributes["tasks"] = {name: list(pair) for name, pair in self.by_task.items()}
        if self.constraints:
            errors = {name: error for name, (_, error) in self.constraints.items()}
            attributes["constraint_errors"] = errors
        if self.broken:
            del attributes["standard_errors"]
            attributes["screened"] = list(self.broken)
        if self.n_cached:
            attributes["n_cached"] = self.n_cached
        signs = Counter(sign for answer in made for sign in answer.signs)
        if signs:
            attributes["diagnosis"] = {s: n / len(made) for s, n in sorted(signs.items())}
        if (n_answers := len(self.answers) - self.n_texts) > self.n_questions:
            attributes["n_answers"] = n_answers
        if self.components:
            attributes["variances"] = {name: list(pair) for name, pair in self.components.items()}
        return attributes
