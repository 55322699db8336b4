"""Greedy answers or drawn ones, many questions or many repeats: what equal tokens buy.

    make bench-repeats

Merges of the demo pair are to be ranked by what they do when answers are drawn. For every seed,
each merge is measured greedily once, and by drawn answers to fewer and fewer questions with more
and more repeats, all for the same tokens. The truth is a long run on other questions. Printed are
the rank correlation with it over the merges, and how many of the 95 % intervals hold it.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

import numpy as np
import torch
from scipy.stats import spearmanr

from mergefront.examples.demo import BASE, EXPERT
from mergefront.examples.demo.task import CHAIN_STEPS, draw_chain, make_facts
from mergefront.objectives.evaluation import (
    METRICS,
    Answer,
    Models,
    ObjectiveMetric,
    Sampling,
    final_answer,
)
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend

GREEDY = Sampling(64)
N = 96
REPEATS = (1, 2, 4, 8)
UNIFORM = (0.2, 0.3, 0.4, 0.55)
OBJECTIVES = [ObjectiveMetric(METRICS[name]) for name in ("accuracy", "tokens")]

Questions = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Row:
    """One way to measure, over all seeds.

    Args:
        tokens: Of a seed and a merge.
        ranks: Metric -> rank correlation of each seed.
        held: Metric -> share of each seed's intervals that hold the truth.
    """

    tokens: list[float]
    ranks: dict[str, list[float]]
    held: dict[str, list[float]]

    def add(self, measured: Sequence[Sequence[Answer]], truth: dict[str, list[float]]) -> None:
        """Add a seed: every merge's answers."""
        self.tokens.extend(sum(a.n_tokens for a in answers) for answers in measured)
        for objective in OBJECTIVES:
            values = [objective.estimate(answers)[0] for answers in measured]
            known = truth[objective.name]
            self.ranks.setdefault(objective.name, []).append(float(spearmanr(values, known)[0]))
            ends = [objective.interval(answers) for answers in measured]
            held = [low <= true <= high for (low, high), true in zip(ends, known, strict=True)]
            self.held.setdefault(objective.name, []).append(fmean(held))

    def __str__(self) -> str:
        cells = [f"{fmean(self.tokens):.0f}"]
        for name in ("accuracy", "tokens"):
            cells += [_mean(self.ranks[name]), _mean(self.held[name])]
        return " | ".join(cells)


class Bench:
    """The pair, and the merges that are measured.

    Args:
        n_mixed: Merges with weights of their own for every layer, beside the uniform ones.
    """

    def __init__(self, n_mixed: int) -> None:
        self.backend = TransformersBackend(320, "cpu")
        self.backend.load(Models(BASE, (EXPERT,), "float32"))
        plan, rng = self.backend.plan, np.random.default_rng(5)
        self.merges = [plan.uniform(weight) for weight in UNIFORM]
        for _ in range(n_mixed):
            drawn = rng.uniform(0.0, 1.0, len(plan.parameter_names))
            self.merges.append(dict(zip(plan.parameter_names, drawn.tolist(), strict=True)))

    def answers(
        self, merge: int, questions: Questions, sampling: Sampling, repeats: Sequence[int]
    ) -> list[list[Answer]]:
        """Return each question's answers, as many as `repeats` says."""
        weights = self.backend.plan.group_weights(self.merges[merge])
        self.backend.apply(weights)
        asked = [(i, k) for i, n in enumerate(repeats) for k in range(n)]
        prompts = [questions[i][0] for i, _ in asked]
        seeds = [sampling.seed_of(f"{merge} {i}", k) for i, k in asked]
        given = self.backend.generate(prompts, sampling, None, seeds)
        table: list[list[Answer]] = [[] for _ in questions]
        for (i, k), answer in zip(asked, given, strict=True):
            right = float((final_answer(answer) or "").strip() == questions[i][1])
            told = (answer.n_tokens, answer.finish_reason, "")
            table[i].append(Answer(str(i), "demo", right, *told, repeat=k))
        return table


def main() -> None:
    """Print one table a temperature."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--mixed", type=int, default=4)
    parser.add_argument("--truth", type=int, default=2000, help="questions of the long run")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.6, 1.0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments.mixed)
    for temperature in arguments.temperatures:
        sampling = Sampling(64, temperature=temperature, top_p=0.95)
        _table(bench, sampling, arguments.seeds, arguments.truth)


def _table(bench: Bench, sampling: Sampling, n_seeds: int, n_truth: int) -> None:
    truth = _long_run(bench, replace(sampling, seed=1 << 20), n_truth)
    rows: dict[int, Row] = {}
    for seed in range(n_seeds):
        for repeats, measured in _measured(bench, replace(sampling, seed=seed)).items():
            rows.setdefault(repeats, Row([], {}, {})).add(measured, truth)
    print(f"\nTemperature {sampling.temperature:g}; what the merges do in the long run:")
    for name, values in truth.items():
        print(f"{name}: {' '.join(f'{value:.3g}' for value in values)}")
    print("\n| answers | tokens | accuracy: ranks | held | tokens: ranks | held |")
    print("|---|---|---|---|---|---|")
    for repeats, row in rows.items():
        label = f"{N // repeats} questions, drawn {repeats} times" if repeats else "greedy, once"
        print(f"| {label} | {row} |", flush=True)


def _long_run(bench: Bench, sampling: Sampling, n: int) -> dict[str, list[float]]:
    """Return what every merge does on many other questions, by metric."""
    questions = _questions(-1, n)
    tables = [bench.answers(m, questions, sampling, [2] * n) for m in range(len(bench.merges))]
    flat = [[answer for own in table for answer in own] for table in tables]
    return {o.name: [o.estimate(answers)[0] for answers in flat] for o in OBJECTIVES}


def _measured(bench: Bench, sampling: Sampling) -> dict[int, list[list[Answer]]]:
    """Return repeats -> every merge's answers; 0 repeats are greedy answers.

    Questions with many repeats are the first ones, so that the ways to draw share answers.
    """
    questions = _questions(sampling.seed, N)
    most = [max(r for r in REPEATS if place < N // r) for place in range(N)]
    merges = range(len(bench.merges))
    drawn = [bench.answers(m, questions, sampling, most) for m in merges]
    greedy = [bench.answers(m, questions, GREEDY, [1] * N) for m in merges]
    spent, whole = (
        sum(own[0].n_tokens for table in tables for own in table) for tables in (drawn, greedy)
    )
    n_greedy = min(N, round(N * spent / whole))
    measured = {0: [[own[0] for own in table[:n_greedy]] for table in greedy]}
    for r in REPEATS:
        measured[r] = [[a for own in table[: N // r] for a in own[:r]] for table in drawn]
    return measured


def _questions(seed: int, n: int) -> Questions:
    """Return prompts and answers like those of the demo's splits: three chains for a fact."""
    rng = random.Random(f"repeats {seed}")
    facts = [(f"{key}?", value) for key, value in make_facts()]
    chains = [draw_chain(CHAIN_STEPS[i % len(CHAIN_STEPS)], rng) for i in range(n)]
    questions = [
        rng.choice(facts) if i % 4 == 0 else (chain.prompt, chain.answer)
        for i, chain in enumerate(chains)
    ]
    rng.shuffle(questions)
    return questions


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ± {stdev(values) / len(values) ** 0.5:.3f}"


if __name__ == "__main__":
    main()
