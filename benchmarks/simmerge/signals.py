"""Compute the signals of all pairs of the catalogue on the tasks that their merges are scored on.

``python benchmarks/simmerge/signals.py --catalogue runs/catalogue --out DIR`` writes
``DIR/signals.csv``: one row per pair and task, one column a feature.
"""

import argparse
import csv
import json
import random
from itertools import combinations
from pathlib import Path

import torch
from measure import triples
from transformers.utils import logging as transformers_logging

from mergefront.examples.demo.catalogue import names, skill_of
from mergefront.examples.demo.skills import SKILLS
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.similarity import (
    FunctionalSettings,
    Seen,
    Signals,
    compare,
    merge_features,
    observe,
    structural_signals,
)

_DIGITS = 5


def own_task(models: tuple[str, ...]) -> tuple[str, ...]:
    """Return the skills that models were trained on: what their merge is scored on."""
    return tuple(sorted({skill_of(name) for name in models}))


def wider_task(pair: tuple[str, ...]) -> tuple[str, ...]:
    """Return a pair's skills and another one, drawn once."""
    own = own_task(pair)
    others = [skill for skill in SKILLS if skill not in own]
    return tuple(sorted({*own, random.Random("+".join(sorted(pair))).choice(others)}))


def tasks_of(pair: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the tasks on which a pair's signals are needed."""
    of_triples = [own_task(triple) for triple in triples() if set(pair) <= set(triple)]
    return sorted({own_task(pair), wider_task(pair), *of_triples})


def probes(catalogue: Path, skill: str) -> list[tuple[str, bool]]:
    """Return one skill's unlabelled prompts."""
    lines = (catalogue / "probes" / f"{skill}.jsonl").read_text().splitlines()
    return [(json.loads(line)["prompt"], True) for line in lines]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    folder, all_names = arguments.catalogue, names()
    ancestor = folder / "ancestor"
    structural = structural_signals(
        [Checkpoint(folder / name) for name in all_names], Checkpoint(ancestor)
    )
    seen: dict[tuple[str, str], list[Seen]] = {}
    for name in all_names:
        for skill in SKILLS:
            asked = probes(folder, skill)
            settings = FunctionalSettings("float32")
            seen[name, skill] = observe(folder / name, ancestor, asked, settings)

    def signals(left: str, right: str, task: tuple[str, ...]) -> Signals:
        first, second = ([s for skill in task for s in seen[n, skill]] for n in (left, right))
        pair = all_names.index(left), all_names.index(right)
        return structural[pair] | compare(first, second)

    rows = []
    for left, right in combinations(sorted(all_names), 2):
        for task in tasks_of((left, right)):
            there, back = signals(left, right, task), signals(right, left, task)
            features = merge_features(there, back, is_ordered=False)
            shown = {name: f"{value:.{_DIGITS}g}" for name, value in features.items()}
            rows.append({"left": left, "right": right, "task": "+".join(task), **shown})
    with (arguments.out / "signals.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
