"""Measure all two-way merges of the catalogue, and three-way merges of some of its triples.

``python benchmarks/simmerge/measure.py --catalogue runs/catalogue --out DIR`` appends to
``DIR/two_way.jsonl`` and ``DIR/three_way.jsonl``, and goes on where it was interrupted.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from mergefront.examples.demo.catalogue import names, skill_of
from mergefront.examples.demo.skills import SKILLS
from mergefront.objectives.checkpoints import Checkpoint
from mergefront.objectives.evaluation import Models, Sampling
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import MergePlan, Recipe, write_checkpoint
from mergefront.study.selection.methods import Method, Step, make_step

METHODS = {
    "linear": Method("linear"),
    "slerp": Method("slerp"),
    "ties": Method("ties", density=0.5, parameters={"normalize": 1.0}),
}
N_TRIPLES = 64
_MAX_NEW_TOKENS = 8
_BATCH = 400


def questions(catalogue: Path, skill: str) -> list[dict[str, str]]:
    """Return one skill's questions."""
    lines = (catalogue / "questions" / f"{skill}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def score(backend: TransformersBackend, catalogue: Path, skills: Sequence[str]) -> dict[str, Any]:
    """Return the number of right answers for each skill, and the seconds it took."""
    asked = [question for skill in skills for question in questions(catalogue, skill)]
    start = time.perf_counter()
    answers = backend.generate([q["prompt"] for q in asked], Sampling(_MAX_NEW_TOKENS))
    right = dict.fromkeys(skills, 0)
    for question, answer in zip(asked, answers, strict=True):
        right[question["kind"]] += answer.text == question["answer"]
    return {"right": right, "seconds": time.perf_counter() - start}


def apply(step: Step) -> TransformersBackend:
    """Return an engine that holds the step's result."""
    backend = TransformersBackend(batch_size=_BATCH)
    backend.load(Models(step.base, step.experts, "float32", step.settings))
    backend.apply({group: step.weights for group in backend.plan.groups})
    return backend


def write(step: Step, out: Path) -> None:
    """Write the step's result as a checkpoint."""
    base, experts = Checkpoint(step.base), [Checkpoint(path) for path in step.experts]
    plan = MergePlan(base.layout, step.settings)
    recipe = Recipe(base, experts, plan, torch.float32)
    write_checkpoint(recipe, {group: step.weights for group in plan.groups}, out)


def parent_row(catalogue: Path, name: str) -> dict[str, Any]:
    """Measure one expert on all skills."""
    path = catalogue / name
    backend = TransformersBackend(batch_size=_BATCH)
    backend.load(Models(path, (path,), "float32"))
    return {"models": [name], "operators": [], **score(backend, catalogue, SKILLS)}


def two_way_rows(catalogue: Path, left: str, right: str) -> Iterator[dict[str, Any]]:
    """Measure a pair's merges on all skills."""
    for operator, method in METHODS.items():
        step = make_step(catalogue / left, catalogue / right, method, 0.5, catalogue / "ancestor")
        found = score(apply(step), catalogue, SKILLS)
        yield {"models": [left, right], "operators": [operator], **found}


def three_way_rows(catalogue: Path, triple: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Measure a triple's chains, all orders and operators, on its own skills.

    The first two models commute: three orders are all there are.
    """
    skills = sorted({skill_of(name) for name in triple})
    ancestor = catalogue / "ancestor"
    for third in triple:
        left, right = [name for name in triple if name != third]
        for operator, method in METHODS.items():
            first = make_step(catalogue / left, catalogue / right, method, 0.5, ancestor)
            with tempfile.TemporaryDirectory() as folder:
                write(first, Path(folder) / "first")
                for last, last_method in METHODS.items():
                    step = make_step(
                        Path(folder) / "first", catalogue / third, last_method, 1 / 3, ancestor
                    )
                    found = score(apply(step), catalogue, skills)
                    models = [left, right, third]
                    yield {"models": models, "operators": [operator, last], **found}


def triples() -> list[tuple[str, ...]]:
    """Return the triples that are measured: of three different skills, drawn once."""
    every = [triple for triple in combinations(names(), 3) if len({*map(skill_of, triple)}) == 3]
    return sorted(random.Random(0).sample(every, N_TRIPLES))


def _two_way(work: tuple[Path, tuple[str, ...]]) -> list[dict[str, Any]]:
    catalogue, models = work
    _quiet()
    if len(models) == 1:
        return [parent_row(catalogue, models[0])]
    return list(two_way_rows(catalogue, *models))


def _three_way(work: tuple[Path, tuple[str, ...]]) -> list[dict[str, Any]]:
    _quiet()
    return list(three_way_rows(*work))


def _quiet() -> None:
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--catalogue", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    alone = list(product(names()))
    plans = {
        "two_way.jsonl": (_two_way, [*alone, *combinations(names(), 2)]),
        "three_way.jsonl": (_three_way, triples()),
    }
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        for name, (measure, groups) in plans.items():
            path = arguments.out / name
            lines = path.read_text().splitlines() if path.exists() else []
            done = {frozenset(json.loads(line)["models"]) for line in lines}
            work = [(arguments.catalogue, g) for g in groups if frozenset(g) not in done]
            with path.open("a") as file:
                for rows in pool.map(measure, work):
                    file.writelines(json.dumps(row) + "\n" for row in rows)
                    file.flush()


if __name__ == "__main__":
    main()
