"""Picked among evaluated models or recommended without a measurement, fixed or rotating questions.

    make bench-recommended

Every study searches the demo pair with 80 questions a candidate: the same 80 for all ("fixed",
drawn anew for each seed), or each candidate another 80 of the split's 320 ("rotating"). For each
of 19 preferences the best evaluated model by expected utility ("picked") and the recommended one
are measured on the 640 questions of the split `test`. Regret: what is lacking to the best utility
of any model measured here, as a share of it.
"""

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from mergefront.objectives import Measurement, MergeObjective
from mergefront.samplers import Recommendation, preference_weights
from mergefront.study import StudySpec
from mergefront.study.results.front import front_report
from mergefront.study.run import make_objective, run
from mergefront.study.spec.inputs import StudyInputs
from mergefront.study.storage.connection import load_study

SPEC = Path(__file__).resolve().parents[2] / "examples" / "demo.yaml"
QUESTIONS, N_QUESTIONS = ("fixed", "rotating"), 80
PREFERENCES = preference_weights(None, 2)
_MARGIN, _WITHIN = 0.1, 1.96
INTERVALS = {"own": "the search's questions", "fresh": "other questions"}

Array = NDArray[np.float64]
Params = dict[str, Any]


@dataclass(frozen=True)
class Search:
    """What a finished study advises.

    Args:
        recommended: One a preference.
        picked: Parameters of the best evaluated trial, one a preference.
    """

    recommended: list[Recommendation]
    picked: list[Params]


class Judge:
    """Measures models on the split `test`, each once.

    Args:
        objective: Over that split.
    """

    def __init__(self, objective: MergeObjective) -> None:
        self._objective = objective
        self._known: dict[str, Measurement] = {}

    def measure(self, params: Params) -> Measurement:
        """Return values and standard errors, accuracy and tokens."""
        key = json.dumps(params, sort_keys=True)
        if key not in self._known:
            self._known[key] = self._objective.measure(params)
        return self._known[key]

    def utilities(self, models: Sequence[Params]) -> Array:
        """Return the utility of each model for each preference, in units of the parents' range."""
        values = np.array([self.measure(params).values for params in models])
        low, high = self.parents
        units = (values - low) / (high - low) + _MARGIN
        utilities: Array = (units[:, None, :] / PREFERENCES.numpy()).min(axis=2)
        return utilities

    @cached_property
    def parents(self) -> tuple[Array, Array]:
        """Values of which the one is worth 0 in both objectives, and the other 1."""
        names = self._objective.plan.uniform(0.0)
        base, expert = (
            np.array(self.measure(dict.fromkeys(names, weight)).values) for weight in (0.0, 1.0)
        )
        return np.array([base[0], expert[1]]), np.array([expert[0], base[1]])

    def best(self) -> Array:
        """Return the best utility of any model that was measured, one a preference."""
        best: Array = self.utilities([json.loads(key) for key in self._known]).max(axis=0)
        return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/recommended"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=60)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    out = arguments.out
    inputs = StudyInputs.of(study_spec(out, "fixed", arguments.trials, 0))
    judge = Judge(make_objective(inputs, "test"))
    tasks = [(kind, seed) for seed in range(arguments.seeds) for kind in QUESTIONS]
    found = {task: _search(study_spec(out, task[0], arguments.trials, task[1])) for task in tasks}
    _print(found, judge, arguments.seeds)


def study_spec(out: Path, kind: str, trials: int, seed: int) -> StudySpec:
    """Return the demo study with 80 questions a candidate."""
    content = StudySpec.from_yaml(SPEC).model_dump(mode="json")
    folder = (out / f"{kind}-{seed}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{folder}/study.db"
    content["study"] |= {"name": folder.name, "storage": storage, "trials": trials, "seed": seed}
    content["evaluation"]["cache"] = str((out / "answers.db").resolve())
    if kind == "rotating":
        content["evaluation"]["rotate"] = True
    else:
        files = content["evaluation"]["tasks"][0]["files"]
        lines = (SPEC.parent / files["search"]).read_text().splitlines(keepends=True)
        files["search"] = str(folder / "search.jsonl")
        Path(files["search"]).write_text("".join(random.Random(seed).sample(lines, N_QUESTIONS)))
    return StudySpec.parse(content, SPEC.parent)


def _search(spec: StudySpec) -> Search:
    run(StudyInputs.of(spec))
    report = front_report(load_study(spec), spec)
    adviser = report.adviser
    assert adviser is not None
    expected = adviser.of_trials(PREFERENCES)
    expected[~adviser.eligible()] = -torch.inf
    rows = expected.argmax(dim=0).tolist()
    picked = [adviser.model.trials[row].params for row in rows]
    return Search(adviser.recommend(PREFERENCES), picked)


def _print(found: dict[tuple[str, int], Search], judge: Judge, seeds: int) -> None:
    got: dict[tuple[str, str], list[Array]] = {}
    for (kind, _), search in found.items():
        for name, models in _choices(search).items():
            utilities = np.diag(judge.utilities(models))
            got.setdefault((kind, name), []).append(utilities)
    best = judge.best()
    regrets = {key: [float((1 - u / best).mean()) for u in rows] for key, rows in got.items()}
    print(f"\n| questions | models | regret, mean of {seeds} searches | less picked, paired |")
    print("|---|---|---|---|")
    for (kind, name), values in regrets.items():
        less = [a - b for a, b in zip(values, regrets[kind, "picked"], strict=True)]
        shown = "" if name == "picked" else _mean(less)
        print(f"| {kind} | {name} | {_mean(values)} | {shown} |")
    for name in ("picked", "recommended"):
        pairs = zip(regrets["rotating", name], regrets["fixed", name], strict=True)
        print(f"\nRotating less fixed, {name}: {_mean([a - b for a, b in pairs])}")
    print("\n| questions | intervals of | hold the value on fresh questions, share | values |")
    print("|---|---|---|---|")
    for kind in QUESTIONS:
        searches = [search for (k, _), search in found.items() if k == kind]
        for name in ("own", "fresh"):
            shares, n = _coverage(searches, judge, name)
            print(f"| {kind} | {INTERVALS[name]} | {_mean(shares)} | {n} |")


def _choices(search: Search) -> dict[str, list[Params]]:
    return {"picked": search.picked, "recommended": [one.params for one in search.recommended]}


def _coverage(searches: Sequence[Search], judge: Judge, of: str) -> tuple[list[float], int]:
    """Return how often each search's unmeasured models are as predicted, and of how many values.

    The questions of a search move all of its values alike, so each search is one number.
    """
    shares, n = [], 0
    for search in searches:
        new = {json.dumps(one.params): one for one in search.recommended if one.number is None}
        scores: list[float] = []
        for one in new.values():
            deviations = one.fresh_deviations if of == "fresh" else one.deviations
            measured = judge.measure(one.params)
            errors = np.hypot(deviations, measured.standard_errors)
            scores += list(np.abs(np.subtract(measured.values, one.values)) / errors)
        shares += [fmean(score <= _WITHIN for score in scores)] if scores else []
        n += len(scores)
    return shares, n


def _mean(values: Sequence[float]) -> str:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{fmean(values):.4f} ± {error:.4f}"


if __name__ == "__main__":
    main()
