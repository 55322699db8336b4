"""Uniform merges, and the merge that the talker was made for: the tables of the model card.

    python benchmarks/smollm2/landmarks.py examples/smollm2/study.yaml --split test

The last row has weight 1 in the layers that learned to reason, 0 in those that learned to talk.
"""

import argparse
import time
from pathlib import Path

import torch

from mergefront.examples.smollm2.train import LOWER, UPPER
from mergefront.objectives import Measurement, MergeObjective
from mergefront.objectives.evaluation import SPLITS
from mergefront.study.run import make_objective
from mergefront.study.spec import load_inputs


def weights_of(objective: MergeObjective) -> dict[str, dict[str, float]]:
    """Return each landmark's weight per layer."""
    # A study's own uniform merges: what it measured is not generated again.
    rows = {f"{i / 7:.2f}": objective.plan.uniform(i / 7) for i in range(8)}
    halves = objective.plan.uniform(0.0) | {f"layer_{i:03d}": 1.0 for i in LOWER}
    return rows | {f"1 in layers 0 to {UPPER[0] - 1}, 0 above": halves}


def row_of(objective: MergeObjective, measurement: Measurement) -> str:
    """Return values with standard errors, and the accuracy by number of steps."""
    hits: dict[int, list[float]] = {}
    for scored, answer in zip(objective.questions, measurement.answers, strict=True):
        hits.setdefault(scored.question.prompt.count(".") - 1, []).append(answer.score)
    by_steps = " | ".join(f"{sum(h) / len(h):.2f}" for _, h in sorted(hits.items()))
    (accuracy, tokens), errors = measurement.values, measurement.standard_errors
    return f"{accuracy:.3f} ± {errors[0]:.3f} | {by_steps} | {tokens:.2f} ± {errors[1]:.2f}"


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--split", choices=SPLITS, default="test")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    inputs = load_inputs(arguments.spec)
    objective = make_objective(inputs, arguments.split)
    print(f"{len(objective.questions)} questions of the split {arguments.split!r}\n")
    print("| weight | accuracy | 1 step | 2 steps | 3 steps | tokens | seconds |")
    print("|---|---|---|---|---|---|---|")
    for label, weights in weights_of(objective).items():
        started = time.perf_counter()
        row = row_of(objective, objective.measure(weights))
        print(f"| {label} | {row} | {time.perf_counter() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
