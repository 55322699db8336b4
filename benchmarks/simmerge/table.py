"""The committed table of measured merges, as examples and scores."""

import csv
import json
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

from measure import METHODS
from signals import own_task, wider_task

from mergefront.samplers.simmerge import Example, Merge

OPERATORS = tuple(METHODS)
N_QUESTIONS = 100

Task = tuple[str, ...]
Pair = tuple[str, str]


@dataclass(frozen=True)
class Table:
    """All measurements.

    Args:
        folder: With two_way.jsonl, three_way.jsonl and signals.csv.
    """

    folder: Path

    def score(self, models: tuple[str, ...], operators: tuple[str, ...], task: Task) -> float:
        """Return the accuracy of a merge, or of one model, on a task: mean over its skills."""
        right = self._two_way[frozenset(models), operators]
        return fmean(right[skill] for skill in task) / N_QUESTIONS

    def mean_of_parents(self, models: tuple[str, ...], task: Task) -> float:
        """Return the mean accuracy of models on a task."""
        return fmean(self.score((model,), (), task) for model in models)

    @cached_property
    def pairs(self) -> list[Pair]:
        """All pairs."""
        return sorted({(left, right) for left, right, _ in self._signals})

    @cached_property
    def triples(self) -> dict[tuple[str, ...], dict[tuple[Any, ...], float]]:
        """Triple -> (models in order, operators) -> accuracy on the triple's task."""
        found: dict[tuple[str, ...], dict[tuple[Any, ...], float]] = {}
        for row in self._rows("three_way.jsonl"):
            chain = (tuple(row["models"]), tuple(row["operators"]))
            accuracy = fmean(row["right"].values()) / N_QUESTIONS
            found.setdefault(tuple(sorted(row["models"])), {})[chain] = accuracy
        return found

    def merge(self, pair: Pair, operator: str, task: Task, with_scores: bool = False) -> Merge:
        """Return what is known of a pair's merge on a task before it is measured."""
        left, right = sorted(pair)
        features = dict(self._signals[left, right, task])
        if with_scores:
            scores = [self.score((model,), (), task) for model in pair]
            features |= {
                "parents.mean": fmean(scores),
                "parents.gap": abs(scores[0] - scores[1]),
            }
        return Merge(pair, METHODS[operator].label, features)

    def example(self, pair: Pair, operator: str, task: Task, with_scores: bool = False) -> Example:
        """Return a measured two-way merge."""
        accuracy = self.score(pair, (operator,), task)
        error = sqrt(accuracy * (1 - accuracy) / (N_QUESTIONS * len(task)))
        gain = accuracy - self.mean_of_parents(pair, task)
        merge = self.merge(pair, operator, task, with_scores)
        return Example(merge, gain, error, "+".join(task))

    def examples(self, pairs: list[Pair], with_scores: bool = False) -> list[Example]:
        """Return all merges of pairs, each on its own task and on a wider one."""
        return [
            self.example(pair, operator, task, with_scores)
            for pair in pairs
            for task in (own_task(pair), wider_task(pair))
            for operator in OPERATORS
        ]

    @cached_property
    def seconds(self) -> list[float]:
        """Seconds that scoring took, on all skills, of every two-way merge."""
        return [row["seconds"] for row in self._rows("two_way.jsonl")]

    @cached_property
    def _two_way(self) -> dict[tuple[frozenset[str], tuple[str, ...]], dict[str, int]]:
        rows = self._rows("two_way.jsonl")
        return {(frozenset(r["models"]), tuple(r["operators"])): r["right"] for r in rows}

    @cached_property
    def _signals(self) -> dict[tuple[str, str, Task], dict[str, float]]:
        with (self.folder / "signals.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return {
            (row.pop("left"), row.pop("right"), tuple(row.pop("task").split("+"))): {
                name: float(value) for name, value in row.items()
            }
            for row in rows
        }

    def _rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]
