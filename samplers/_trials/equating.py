"""Equating: values of trials that answered different questions, made comparable.

A trial may carry the attribute `answers: {"questions": [id, ...], "values": [[one number a
question] an objective]}`. Where trials answered different questions, the mean effect of a trial's
own questions (`two_way.py`) is taken off its value.

With tasks, `answers["tasks"]` names one for every question; the value is then the sum over
tasks of the mean of the numbers, and each task has effects of its own.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial

from .magnitude import LARGEST
from .two_way import two_way

Array = NDArray[np.float64]
# Values are means of answers up to an offset and a unit; where more than this share of their
# spread is something else (a percentile), equating the answers would not equate the values.
_MOST_UNEXPLAINED = 0.05


@dataclass(frozen=True)
class Equated:
    """Values made comparable.

    Args:
        values: An `n x m`-dim array.
        errors: Standard errors of the differences between trials, `n x m`-dim; NaN where not
            equated.
        left: For every objective, what all questions together leave uncertain about others, for
            all trials alike, as a share of a trial's own variance; 1 where not equated.
    """

    values: Array
    errors: Array
    left: Array


@dataclass(frozen=True)
class _Answers:
    """All answers of one task: one entry an answer.

    Args:
        trials: Row of its trial.
        questions: Number of its question.
        numbers: What it counts: in every objective, `answers x m`-dim, or in one.
    """

    trials: NDArray[np.int64]
    questions: NDArray[np.int64]
    numbers: Array

    def chosen(self, keep: NDArray[np.bool_]) -> "_Answers":
        """Return some of the answers; questions are numbered from 0 again."""
        if bool(keep.all()):
            return self
        _, questions = np.unique(self.questions[keep], return_inverse=True)
        return _Answers(self.trials[keep], questions, self.numbers[keep])

    def column(self, j: int) -> "_Answers":
        """Return one objective's answers, without those that say nothing of it."""
        numbers = self.numbers[:, j]
        return _Answers(self.trials, self.questions, numbers).chosen(np.abs(numbers) <= LARGEST)

    def averaged(self) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """Return trials, questions and the mean of each trial's repeats of a question.

        Repeats are no further questions: they tell nothing of the others.
        """
        cells = self.trials * (self.questions.max() + 1) + self.questions
        kept, place, counts = np.unique(cells, return_inverse=True, return_counts=True)
        if len(kept) == len(cells):
            return self.trials, self.questions, self.numbers
        means = np.bincount(place, self.numbers) / counts
        return *np.divmod(kept, self.questions.max() + 1), means


def equate(trials: Sequence[FrozenTrial], values: Array) -> Equated | None:
    """Equate all trials that carry answers; None where they all answered the same questions.

    Args:
        trials: Measured.
        values: Of the same trials, `n x m`-dim.
    """
    told = [read_answers(trial, values.shape[1]) for trial in trials]
    if len({frozenset(answers.questions) for answers in told if answers is not None}) < 2:
        return None
    rows = [row for row, answers in enumerate(told) if answers is not None]
    strata = _strata([answers for answers in told if answers is not None])
    equated, errors = values.copy(), np.full_like(values, np.nan)
    left = np.ones(values.shape[1])
    for j in range(values.shape[1]):
        result = _equate_column([answers.column(j) for answers in strata], values[rows, j])
        if result is not None:
            equated[rows, j], errors[rows, j], left[j] = result
    return Equated(equated, errors, left)


@dataclass(frozen=True)
class Sheet:
    """One trial's answers: ids and tasks of its questions, and a `q x m`-dim array of numbers."""

    questions: list[Any]
    tasks: list[Any]
    numbers: Array

    def variances(self) -> list[float]:
        """Return the variance of each value as a mean of independent answers."""
        tasks = _codes(self.tasks)
        total = np.zeros(self.numbers.shape[1])
        for task in range(tasks.max() + 1):
            part = self.numbers[tasks == task]
            if len(part) > 1:
                total += part.var(axis=0, ddof=1) / len(part)
        variances: list[float] = total.tolist()
        return variances


def read_answers(trial: FrozenTrial, m: int) -> Sheet | None:
    """Return a trial's answers; None if there are none, or if they are malformed."""
    told: Any = trial.user_attrs.get("answers")
    if not isinstance(told, Mapping) or not isinstance(told.get("questions"), list):
        return None
    questions = told["questions"]
    tasks = told.get("tasks", [""] * len(questions))
    try:
        numbers = np.array(told.get("values"), dtype=np.float64).T
        hash((*questions, *tasks))
    except (OverflowError, TypeError, ValueError):
        return None
    if not questions or numbers.shape != (len(questions), m) or len(tasks) != len(questions):
        return None
    return Sheet(questions, tasks, numbers)


def _strata(sheets: Sequence[Sheet]) -> list[_Answers]:
    counts = [len(sheet.questions) for sheet in sheets]
    trials = np.repeat(np.arange(len(sheets)), counts)
    questions = _codes(question for sheet in sheets for question in sheet.questions)
    tasks = _codes(task for sheet in sheets for task in sheet.tasks)
    numbers = np.concatenate([sheet.numbers for sheet in sheets])
    every = _Answers(trials, questions, numbers)
    return [every.chosen(tasks == task) for task in range(tasks.max() + 1)]


def _codes(names: Iterable[Any]) -> NDArray[np.int64]:
    """Return a number from 0 for every name."""
    known: defaultdict[Any, int] = defaultdict(lambda: len(known))
    return np.fromiter((known[name] for name in names), dtype=np.int64)


def _equate_column(strata: Sequence[_Answers], values: Array) -> tuple[Array, Array, float] | None:
    """Return one objective's equated values, their errors, and what all questions leave.

    None if it is no mean of answers.
    """
    n = len(values)
    raw, shifts, variances = np.zeros(n), np.zeros(n), np.zeros(n)
    of_pool = of_trial = 0.0
    for answers in strata:
        if not len(answers.numbers):
            return None
        counts = np.bincount(answers.trials, minlength=n)
        raw += np.bincount(answers.trials, answers.numbers, minlength=n) / np.maximum(counts, 1)
        cells = answers.averaged()
        effects = two_way(*cells, n)
        shifts, variances = shifts + effects.shifts, variances + effects.variances
        variance = effects.of_questions + effects.rest
        of_pool += variance / (answers.questions.max() + 1)
        of_trial += variance * len(np.unique(cells[0])) / len(cells[0])
    unit = _unit(raw, values)
    if unit is None:
        return None
    left = of_pool / of_trial if of_trial > 0 else 1.0
    return values - unit * shifts, abs(unit) * np.sqrt(variances), min(left, 1.0)


def _unit(raw: Array, values: Array) -> float | None:
    """Return what one unit of the answers' mean is in the value; None if it is no such mean."""
    spread = values.std()
    if np.abs(values - raw).max() <= _MOST_UNEXPLAINED * spread:
        return 1.0
    if len(values) < 3 or not raw.std() > 0:
        return None
    slope, offset = np.polyfit(raw, values, 1)
    unexplained = float((values - offset - slope * raw).std())
    return float(slope) if unexplained <= _MOST_UNEXPLAINED * spread else None
