"""Uniform merges, and the merge that the talker was made for: the tables of the model card.

    python benchmarks/smollm2/landmarks.py examples/smollm2/study.yaml --first 150

`--first` asks so many of the split's questions, in their order. ± is a standard error. The last
row has weight 1 in the layers that learned to reason, 0 in those that learned to talk.
"""

import argparse
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import torch

from mergefront.examples.smollm2.train import LOWER, UPPER
from mergefront.objectives import Measurement, MergeObjective, ScoredQuestion
from mergefront.objectives.evaluation import SPLITS
from mergefront.objectives.evaluation.tasks import Split
from mergefront.study.run import make_objective
from mergefront.study.spec import StudyInputs, load_inputs


def weights_of(objective: MergeObjective) -> dict[str, dict[str, float]]:
    """Return each landmark's weight per layer."""
    # A study's own uniform merges: what it measured is not generated again.
    rows = {f"{i / 7:.2f}": objective.plan.uniform(i / 7) for i in range(8)}
    halves = objective.plan.uniform(0.0) | {f"layer_{i:03d}": 1.0 for i in LOWER}
    return rows | {f"1 in layers 0 to {UPPER[0] - 1}, 0 above": halves}


def first_of(inputs: StudyInputs, split: Split, n: int | None) -> StudyInputs:
    """Return the same with the first questions of one split alone."""
    tasks = [replace(t, splits={**t.splits, split: t.splits[split][:n]}) for t in inputs.tasks]
    return replace(inputs, tasks=tuple(tasks))


def steps_of(scored: ScoredQuestion) -> int:
    """Return how many steps a question takes: a sentence each, after the first."""
    return scored.question.prompt.count(".") - 1


def by_steps(objective: MergeObjective, measurement: Measurement) -> list[str]:
    """Return the accuracy on questions of each number of steps, with its standard error."""
    hits: dict[int, list[float]] = {}
    for scored, answer in zip(objective.questions, measurement.answers, strict=True):
        hits.setdefault(steps_of(scored), []).append(answer.score)
    return [
        f"{fmean(scores):.2f} ± {stdev(scores) / len(scores) ** 0.5:.2f}"
        for _, scores in sorted(hits.items())
    ]


def row_of(objective: MergeObjective, measurement: Measurement) -> str:
    """Return values with standard errors, and the accuracy by number of steps."""
    (accuracy, tokens), errors = measurement.values, measurement.standard_errors
    cells = [f"{accuracy:.3f} ± {errors[0]:.3f}", *by_steps(objective, measurement)]
    return " | ".join([*cells, f"{tokens:.2f} ± {errors[1]:.2f}"])


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="validation")
    parser.add_argument("--first", type=int, help="questions; default: all of the split")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    inputs = first_of(load_inputs(arguments.spec), arguments.split, arguments.first)
    objective = make_objective(inputs, arguments.split)
    print(f"{len(objective.questions)} questions of the split {arguments.split!r}\n")
    steps = sorted(Counter(map(steps_of, objective.questions)).items())
    names = [f"{k} step{'s' if k > 1 else ''} (n = {n})" for k, n in steps]
    print(f"| weight | accuracy | {' | '.join(names)} | tokens | seconds |")
    print("|---|---|" + "---|" * (len(names) + 2))
    for label, weights in weights_of(objective).items():
        started = time.perf_counter()
        row = row_of(objective, objective.measure(weights))
        print(f"| {label} | {row} | {time.perf_counter() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
