"""What so many questions can show: paired tests, visible differences, criteria set beforehand."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm

from .clusters import Clusters, Numbers, resamples
from .estimators import means
from .metrics import Answer, ObjectiveMetric, clusters_of

_N_RESAMPLES = 2000
# Share of questions on which two models of a front typically disagree.
DISAGREEMENT = 0.2
_CRITERION = re.compile(
    r"^\s*(?P<what>\S+(?: over \S.*?)?)\s*(?P<sign>>=|>|<=|<)\s*(?P<bound>[-+.\deE]+)"
    r"(?:\s+with\s+(?P<level>[\d.]+)\s*%)?\s*$"
)


def mcnemar(one: Numbers, other: Numbers) -> float:
    """Return the p-value of two models answering equally well, from single right or wrong answers.

    Exact: of the questions on which they differ, each is as likely to win (McNemar 1947).
    """
    wins, losses = int(np.sum(one > other)), int(np.sum(one < other))
    return float(binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def paired_interval(
    one: Numbers, other: Numbers, clusters: Clusters | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Return the bootstrap interval of a difference of means, whole clusters drawn for both."""
    counts = resamples(len(one), _N_RESAMPLES, clusters=clusters)
    drawn = counts @ (one - other) / counts.sum(axis=1)
    low, high = np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def visible_difference(
    n_questions: int, disagreement: float = DISAGREEMENT, power: float = 0.8
) -> float:
    """Return the smallest difference of two accuracies that so many questions show.

    Args:
        n_questions: Asked of both models, or as many as clusters are worth.
        disagreement: Share of questions that one of them answers right and the other wrong.
        power: Probability that a two-sided test at 5 % finds it.
    """
    reach = float(norm.ppf(0.975) + norm.ppf(power))
    return reach * math.sqrt(disagreement / n_questions)


@dataclass(frozen=True)
class Criterion:
    """What a study is to show, written before it runs.

    Args:
        text: As in the spec: `gain over uniform > 0 with 95 %`.
        what: `gain over uniform`, `survives`, or `METRIC over LABEL`.
        sign: How the quantity compares with the bound.
        bound: Of the quantity.
        level: Share of the resamples that must agree.
    """

    text: str
    what: str
    sign: str
    bound: float
    level: float

    @classmethod
    def of(cls, text: str) -> "Criterion":
        """Read a criterion.

        Raises:
            ValueError: If it cannot be read.
        """
        found = _CRITERION.match(text)
        try:
            if found is None:
                raise ValueError
            level = float(found["level"] or 95) / 100
            criterion = cls(text, found["what"], found["sign"], float(found["bound"]), level)
            if criterion.metric is not None and not all(criterion.metric):
                raise ValueError
        except ValueError:
            raise ValueError(
                "a criterion must be like 'gain over uniform > 0 with 95 %' (or `survives`, or "
                f"`METRIC over LABEL`), but got {text!r}"
            ) from None
        if not 0.5 <= level < 1:
            raise ValueError(
                f"a criterion's level must be from 50 to below 100 %, but is {text!r}"
            )
        return criterion

    @property
    def metric(self) -> tuple[str, str] | None:
        """The metric and the model that it is compared with; None for what is a study's own."""
        if self.what in ("gain over uniform", "survives"):
            return None
        name, _, label = self.what.partition(" over ")
        return name, label

    def answer(self, drawn: Mapping[str, Numbers]) -> dict[str, object]:
        """Return whether it is proven.

        Args:
            drawn: Quantity -> its value in each resample; absent where there is none.
        """
        values = drawn.get(self.what)
        if values is None:
            return {"criterion": self.text, "proven": False, "share": None}
        compare = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}
        share = float(compare[self.sign](values, self.bound).mean())
        return {"criterion": self.text, "proven": share >= self.level, "share": share}


def compared(
    one: Sequence[Answer], other: Sequence[Answer], metric: ObjectiveMetric
) -> dict[str, object]:
    """Return by how much a metric differs between two models that answered the same questions.

    Single answers that are right or wrong are tested by McNemar's test, all else by the bootstrap
    interval alone.

    Args:
        one: Answers of a model.
        other: Those of the model that it is compared with, in the same order.
        metric: A mean over answers.
    """
    weights = metric.weights([answer.task for answer in one])
    counted = [int(row) for row in np.flatnonzero(weights)]
    one, other = ([each[row] for row in counted] for each in (one, other))
    weights = weights[counted] * len(one)
    values, others = (metric.metric.numbers(each) for each in (one, other))
    clusters = clusters_of(one)
    single = clusters is None and set(np.unique([values, others])) <= {0.0, 1.0}
    return {
        "metric": metric.name,
        "difference": float(np.mean((values - others) * weights)),
        "interval": list(paired_interval(values * weights, others * weights, clusters)),
        "p": mcnemar(values, others) if single else None,
    }


def gains_of_best(
    criteria: Sequence[Criterion],
    names: Sequence[str],
    labels: Sequence[str],
    believed: Mapping[int, Sequence[float]],
    maximized: Numbers,
    flips: Numbers,
) -> dict[str, Numbers]:
    """Return how much better a front's best model is than a named one, in each resample.

    The best is chosen by what the search believed, not by the questions that judge it.

    Args:
        criteria: Those that name a metric and a model.
        names: Of the metrics.
        labels: Of the models.
        believed: Place of each model of the front -> what the search believed of it.
        maximized: Resamples x models x metrics, larger is better.
        flips: 1 where a metric is maximized, -1 where it is minimized.
    """
    gains: dict[str, Numbers] = {}
    for criterion in criteria:
        name, label = criterion.metric or ("", "")
        if name in names and label in labels:
            column, other = list(names).index(name), list(labels).index(label)
            ranked = {flips[column] * values[column]: row for row, values in believed.items()}
            best = ranked[max(ranked)]
            gains[criterion.what] = maximized[:, best, column] - maximized[:, other, column]
    return gains


def compared_with_parents(
    models: Sequence[tuple[str, bool, bool, Sequence[Answer]]], metrics: Sequence[ObjectiveMetric]
) -> list[dict[str, object]]:
    """Compare each model of a front with each parent, answer by answer.

    Args:
        models: Label, whether it is in the front, whether it is a parent, and answers.
        metrics: Those that are means over answers are compared.
    """
    return [
        {"model": label, "against": other, **compared(answers, others, metric)}
        for label, in_front, _, answers in models
        for other, _, is_parent, others in models
        for metric in metrics
        if in_front and is_parent and label != other and metric.metric.statistic is means
    ]
