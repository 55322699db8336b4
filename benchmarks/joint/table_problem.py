"""What to merge of three experts, how and in which order, answered by the catalogue's table."""

from collections.abc import Iterator
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from measure import METHODS
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from signals import own_task
from table import OPERATORS, Table

from mergefront.examples.demo.catalogue import skill_of
from mergefront.samplers.simmerge import Prediction, Predictor, rank_chains

N_QUESTIONS = 50
Merge = tuple[tuple[str, ...], tuple[str, ...]]


class TableProblem:
    """One of the table's triples, scored on the skills of its three experts together.

    Its arms are the experts themselves, every merge of two and every merge of all three by one
    operator; SLERP merges them one after the other, in three orders. Weights are equal.

    Args:
        table: Of measured merges; its accuracies are the truth.
        triple: Names of the experts.
        seed: Of the answers that are drawn, 50 a skill.
    """

    def __init__(self, table: Table, triple: tuple[str, ...], seed: int) -> None:
        self.table, self.triple, self.task = table, triple, own_task(triple)
        found = list(self._merges())
        self.merges: list[Merge] = [merge for merge, _ in found]
        self.truths = [truth for _, truth in found]
        self.arms = [self._arm(*merge) for merge in self.merges]
        rng = np.random.default_rng([seed, *map(ord, "".join(triple))])
        n = N_QUESTIONS * len(self.task)
        right = [int(rng.binomial(n, truth)) for truth in self.truths]
        self.measured = [r / n for r in right]
        self.errors = [((r + 1) * (n - r + 1) / (n + 2) ** 2 / (n + 3)) ** 0.5 for r in right]

    def _merges(self) -> Iterator[tuple[Merge, float]]:
        for name in self.triple:
            yield ((name,), ()), self.table.score((name,), (), self.task)
        for pair in combinations(self.triple, 2):
            for operator in OPERATORS:
                yield (pair, (operator,)), self.table.score(pair, (operator,), self.task)
        for (models, operators), truth in self.table.triples[self.triple].items():
            one = len(set(operators)) == 1
            if one and (operators[0] == "slerp" or models[2] == self.triple[2]):
                yield (models, operators), truth

    def _arm(self, models: tuple[str, ...], operators: tuple[str, ...]) -> dict[str, Any]:
        numbers = [self.triple.index(name) + 1 for name in models]
        in_turn = operators[:1] == ("slerp",)
        label = ">".join(map(str, numbers)) if in_turn else "+".join(map(str, sorted(numbers)))
        shares = {f"share@{k}": (k in numbers) / len(numbers) for k in (1, 2, 3)}
        return {"experts": label, "operator": operators[0] if operators else "linear", **shares}

    @property
    def space(self) -> dict[str, BaseDistribution]:
        """Choices, and the experts' shares, which arms fix."""
        return {
            "experts": CategoricalDistribution([*dict.fromkeys(a["experts"] for a in self.arms)]),
            "operator": CategoricalDistribution(list(OPERATORS)),
            **{f"share@{k}": FloatDistribution(0.0, 1.0) for k in (1, 2, 3)},
        }

    @cached_property
    def first(self) -> list[int]:
        """Places of the arms: the experts, then merges, operators and experts in turn."""
        order, turn = [0, 1, 2], 0
        left = {o: self.of_operator(o, 3) for o in OPERATORS}
        while any(left.values()):
            row = left[OPERATORS[turn % len(OPERATORS)]]
            if row:
                order.append(row.pop(turn * 5 % len(row)))
            turn += 1
        return order

    def of_operator(self, operator: str, start: int = 0) -> list[int]:
        """Return the places of its arms, from one on; the experts belong to all operators."""
        places = range(start, len(self.arms))
        return [k for k in places if k < 3 or self.arms[k]["operator"] == operator]

    def predictions(self) -> list[Prediction]:
        """Return every arm's predicted gain over the mean of its experts, 0 of an expert alone.

        The predictor has seen no merge of any of the triple's skills.
        """
        skills = {skill_of(name) for name in self.triple}
        train = [p for p in self.table.pairs if not skills & {skill_of(name) for name in p}]
        predictor = Predictor.fit(self.table.examples(train))
        asked = [(pair, o) for pair in combinations(self.triple, 2) for o in OPERATORS]
        gains = predictor.predict([self.table.merge(pair, o, self.task) for pair, o in asked])
        known = {}
        for ((a, b), o), gain in zip(asked, gains, strict=True):
            known[a, b, METHODS[o].label] = known[b, a, METHODS[o].label] = gain
        labels = [METHODS[o].label for o in OPERATORS]
        ranked = {
            (frozenset(one.chain.models[:2]), one.chain.models[2:], one.chain.operators): one
            for one in rank_chains(self.triple, labels, known, 3)
        }
        found = []
        for models, operators in self.merges:
            key = frozenset(models[:2]), models[2:], tuple(METHODS[o].label for o in operators)
            found.append(ranked[key].prediction if operators else Prediction(0.0, 0.0))
        return found
