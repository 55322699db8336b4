"""Measure the demo pair's uniform merges: the table of its model card.

    python benchmarks/demo/uniform_curve.py --split test

One row a weight: 0 is the base, 1 the expert. Greedy decoding, values with standard errors.
"""

import argparse

import numpy as np
import torch

from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.evaluation import (
    METRICS,
    SPLITS,
    Answer,
    Models,
    Sampling,
    TaskSource,
    load_task,
)
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.evaluation.estimators import share_error


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--points", type=int, default=11, help="weights from 0 to 1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    objective = _objective(arguments.split)
    print(f"{len(objective.questions)} questions of the split {arguments.split!r}\n")
    print("| weight | accuracy | facts | chains | tokens |\n|---|---|---|---|---|")
    for index in range(arguments.points):
        weight = index / (arguments.points - 1)
        measurement = objective.measure(objective.plan.uniform(weight))
        (accuracy, tokens), errors = measurement.values, measurement.standard_errors
        pairs = list(zip(objective.questions, measurement.answers, strict=True))
        facts = [answer for scored, answer in pairs if scored.question.prompt[0].isalpha()]
        chains = [answer for scored, answer in pairs if scored.question.prompt[0].isdigit()]
        print(
            f"| {weight:.2g} | {accuracy:.3f} ± {errors[0]:.3f} | {_share(facts)} | "
            f"{_share(chains)} | {tokens:.2f} ± {errors[1]:.2f} |"
        )


def _objective(split: str) -> MergeObjective:
    backend = TransformersBackend(batch_size=640)
    backend.load(Models(BASE, (EXPERT,), "float32"))
    files = {name: QUESTIONS / f"{name}.jsonl" for name in SPLITS}
    task = load_task(TaskSource("demo", files))
    metrics = [METRICS["accuracy"], METRICS["tokens"]]
    questions = questions_of([task], split)
    return MergeObjective(backend, backend.plan, questions, metrics, Sampling(64))


def _share(answers: list[Answer]) -> str:
    hits = np.array([answer.score for answer in answers])
    return f"{sum(hits) / len(hits):.3f} ± {share_error(hits):.3f}"


if __name__ == "__main__":
    main()
