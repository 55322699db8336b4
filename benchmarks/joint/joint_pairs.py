"""The pairs of parents that the ways to search are compared on.

The demo pair, and three pairs of experts of the catalogue, chosen by its committed table of merges
at weight one half: one where linear merges are best (.59 against .41 of TIES), one where TIES is
(.49 against .24), and one where all are alike (.52).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.examples.demo.catalogue import Size, build, skill_of
from mergefront.examples.demo.skills import questions

CATALOGUE = Path("runs/catalogue")
DEMO = "demo"
PAIRS = (
    DEMO,
    "double-heavy+reverse-heavy",
    "reverse-light+shift-heavy",
    "rotate-heavy+sort-light",
)
N_QUESTIONS, N_FRESH = 120, 256


def sections(pair: str, folder: Path, seed: int) -> dict[str, Any]:
    """Write the questions of a seed; return a spec's models, objectives and evaluation.

    Of the demo pair, accuracy and tokens count. Experts of the catalogue have one task each, with
    half of the questions, and its accuracy is one of the two objectives.
    """
    if pair == DEMO:
        models = {"base": str(BASE), "experts": [str(EXPERT)], "dtype": "float32"}
        objectives = [{"metric": "accuracy"}, {"metric": "tokens"}]
        tasks, n_tokens, files = ["demo"], 64, _demo_questions(seed)
    else:
        experts = pair.split("+")
        build(CATALOGUE, Size(), 1, experts)
        paths = [str((CATALOGUE / name).resolve()) for name in experts]
        base = str((CATALOGUE / "ancestor").resolve())
        models = {"base": base, "experts": paths, "dtype": "float32"}
        tasks, n_tokens = [skill_of(name) for name in experts], 8
        objectives = [{"metric": f"accuracy/{task}"} for task in tasks]
        files = _skill_questions(tasks, seed)
    for name, lines in files:
        (folder / name).write_text("".join(lines))
    return {
        "models": models,
        "objectives": objectives,
        "evaluation": {
            "max_new_tokens": n_tokens,
            "batch_size": 128,
            "tasks": [
                {"name": task, "files": {s: _file(task, s) for s in ("search", "test")}}
                for task in tasks
            ],
        },
    }


def _file(task: str, split: str) -> str:
    return f"{split}.jsonl" if task == DEMO else f"{task}-{split}.jsonl"


def _demo_questions(seed: int) -> Iterator[tuple[str, list[str]]]:
    for split, n, rng in (
        ("search", N_QUESTIONS, np.random.default_rng([seed, 1])),
        ("test", N_FRESH, np.random.default_rng(2)),
    ):
        lines = (QUESTIONS / f"{split}.jsonl").read_text().splitlines(keepends=True)
        yield _file(DEMO, split), [lines[i] for i in rng.permutation(len(lines))[:n]]


def _skill_questions(skills: list[str], seed: int) -> Iterator[tuple[str, list[str]]]:
    for skill in skills:
        fresh = questions(skill, N_FRESH, 999)
        drawn = questions(skill, N_QUESTIONS, 1000 + seed)
        known = {each.prompt for each in fresh}
        asked = [each for each in drawn if each.prompt not in known][: N_QUESTIONS // 2]
        for split, chosen in (("search", asked), ("test", fresh)):
            yield _file(skill, split), [json.dumps(asdict(each)) + "\n" for each in chosen]
