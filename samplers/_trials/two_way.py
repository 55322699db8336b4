r"""A two-way model of answers: candidates and questions.

    y_iq = m_i + g_q + e,    g_q ~ N(0, s_g^2),  e ~ N(0, s_e^2),

a candidate's value, a question's effect and the rest. The variances are found by expectation
maximization, values and effects by generalized least squares (the two-way model with random
columns of Henderson 1953; in testing, linear equating).

Cost and memory are linear in the number of answers: 2,000 trials of 2,000 questions take seconds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

Array = NDArray[np.float64]
_MOST_STEPS, _CONJUGATE_STEPS, _TOLERANCE = 40, 60, 1e-3
_QUESTIONS_FIRST = 0.4  # share of the variance that is first taken for the questions'


@dataclass(frozen=True)
class Effects:
    """What a two-way model says about one objective on one task.

    Args:
        shifts: For every trial, the mean effect of its questions.
        variances: For every trial, the variance of its value.
        of_questions: Variance of the questions' effects.
        rest: Variance of what is left.
    """

    shifts: Array
    variances: Array
    of_questions: float
    rest: float


def two_way(
    trials: NDArray[np.int64], questions: NDArray[np.int64], numbers: Array, n: int
) -> Effects:
    """Fit `y = m_i + g_q + e` with random effects of questions.

    Args:
        trials: Row of each answer's trial.
        questions: Number of its question, from 0.
        numbers: The answers.
        n: Trials.
    """
    design = _Design(trials, questions, n)
    centred = design.centred(numbers)
    total = float(centred @ centred) / max(len(numbers) - n, 1)
    ours, rest = _QUESTIONS_FIRST * total, (1 - _QUESTIONS_FIRST) * total
    effects = np.zeros(len(design.per_question))
    for _ in range(_MOST_STEPS):
        before, ridge = (ours, rest), _ridge(ours, rest)
        effects = design.solve(centred, ridge, effects)
        ours, rest = design.variances(centred, effects, ridge, rest)
        if abs(ours - before[0]) + abs(rest - before[1]) <= _TOLERANCE * total:
            break
    shifts, variances = design.of_trials(effects, _ridge(ours, rest), rest)
    return Effects(shifts, variances, ours, rest)


def _ridge(ours: float, rest: float) -> float:
    return rest / max(ours, 1e-9 * rest) if rest > 0 else 1e-9


class _Design:
    """Who answered what, and least squares on it.

    Args:
        trials: Row of each answer's trial.
        questions: Number of its question.
        n: Trials.
    """

    def __init__(self, trials: NDArray[np.int64], questions: NDArray[np.int64], n: int) -> None:
        shape = (n, int(questions.max()) + 1)
        self.counts = csr_matrix((np.ones(len(trials)), (trials, questions)), shape=shape)
        self.transposed = self.counts.T.tocsr()
        self.trials, self.questions, self.n = trials, questions, n
        self.per_trial = np.maximum(np.bincount(trials, minlength=n), 1)
        self.per_question = np.bincount(questions)

    def centred(self, numbers: Array) -> Array:
        """Return answers less their trial's mean."""
        means = np.bincount(self.trials, numbers, self.n) / self.per_trial
        result: Array = numbers - means[self.trials]
        return result

    def solve(self, centred: Array, ridge: float, start: Array) -> Array:
        """Return the questions' effects by conjugate gradients, with the trials' values freed.

        Args:
            centred: Answers less their trials' means.
            ridge: Variance of the rest over that of the effects.
            start: Effects to begin with.
        """
        sums = np.bincount(self.questions, centred, len(start))
        scale = 1.0 / (self.per_question + ridge)
        x, residual = start.copy(), sums - self._times(start, ridge)
        direction = scaled = scale * residual
        size = float(residual @ scaled)
        enough = 1e-14 * max(float(sums @ (scale * sums)), 1e-300)
        for _ in range(_CONJUGATE_STEPS):
            if size <= enough:
                break
            image = self._times(direction, ridge)
            step = size / float(direction @ image)
            x, residual = x + step * direction, residual - step * image
            scaled = scale * residual
            size, last = float(residual @ scaled), size
            direction = scaled + size / last * direction
        return x

    def _times(self, effects: Array, ridge: float) -> Array:
        of_trials = (self.counts @ effects) / self.per_trial
        result: Array = (self.per_question + ridge) * effects - self.transposed @ of_trials
        return result

    def variances(
        self, centred: Array, effects: Array, ridge: float, rest: float
    ) -> tuple[float, float]:
        """Return the variances of effects and of the rest after one step of EM."""
        left = self.centred(centred - effects[self.questions])
        shrunk = 1.0 / (self.per_question + ridge)
        n_effective = len(shrunk) - ridge * float(shrunk.sum())
        freedom = len(centred) - len(np.unique(self.trials)) - n_effective
        ours = float(np.mean(effects**2 + rest * shrunk))
        return ours, float(left @ left) / max(freedom, 1.0)

    def of_trials(self, effects: Array, ridge: float, rest: float) -> tuple[Array, Array]:
        """Return each trial's mean effect and the variance of its value.

        The variance is that of contrasts: what is uncertain about all trials alike is left out.
        """
        shrunk = 1.0 / (self.per_question + ridge)
        squares = self.counts @ shrunk / self.per_trial
        shifts: Array = (self.counts @ effects) / self.per_trial
        return shifts, rest * (1.0 + squares) / self.per_trial
