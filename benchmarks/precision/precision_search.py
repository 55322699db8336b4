"""Weights and precision searched together, or one after the other.

    make bench-precision
    python benchmarks/precision/precision_search.py --pair smollm2

Every way gets 24 evaluations; each seed has its own questions. What counts is the hypervolume of
the reported front (denoised) on fresh questions, memory in units of the model in the pair's first
precision. Finished runs are kept in the folder and not repeated.
"""

import argparse
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
import torch
from botorch.utils.multi_objective.pareto import is_non_dominated
from optuna.trial import TrialState, create_trial
from precision_pairs import PAIRS, Pair

from mergefront.objectives import Measurement, MergeObjective
from mergefront.samplers import denoise, signs
from mergefront.study.first_trials import first_trials, search_space
from mergefront.study.importance import compute_importance
from mergefront.study.results.front import hypervolume
from mergefront.study.run import make_objective, make_sampler
from mergefront.study.seeding import IMPORTANCE
from mergefront.study.spec.inputs import StudyInputs

BUDGET, N_ALL = 24, 640
# Uniform weights at which rounding alone is looked at.
_LEVELS = (0.7, 1.0)

Params = Mapping[str, Any]


def main() -> None:
    """Run what is missing, then print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/precision"))
    parser.add_argument("--pair", choices=PAIRS, default="demo")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    out, pair = (arguments.out / arguments.pair).resolve(), PAIRS[arguments.pair]
    if arguments.pair == "demo":
        _print_costs(_kept(out / "costs.json", lambda: _costs(out / "costs", pair)))
    found = [
        _kept(out / f"{seed}.json", lambda seed=seed: _Bench.of(pair, out, seed).volumes())
        for seed in range(arguments.seeds)
    ]
    print(f"\n| way | validated hypervolume | less than joint's ({len(found)} seeds, paired) |")
    print("|---|---|---|")
    for name in found[0]:
        volumes = [each[name] for each in found]
        less = [each["joint"] - each[name] for each in found]
        print(f"| {name} | {_mean(volumes)} | {'' if name == 'joint' else _mean(less)} |")


def _mean(values: Sequence[float]) -> str:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{fmean(values):.4f} ± {error:.4f}"


def _kept(path: Path, make: Any) -> dict[str, Any]:
    if not path.exists():
        content = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content))
        part.rename(path)
    return dict(json.loads(path.read_text()))


def _costs(folder: Path, pair: Pair) -> dict[str, Any]:
    """Return how accurate uniform merges are in every precision, on the same fresh questions."""
    choice = {"choose": ["bfloat16", "fp8", "int8", "int4"]}
    metrics = ("accuracy", "memory")
    inputs = pair.inputs(folder, -1, BUDGET, {"precision": choice}, metrics, N_ALL)
    asked = make_objective(inputs, "test")
    found: dict[str, Any] = {}
    for level, name in product(_LEVELS, choice["choose"]):
        params = {**inputs.plan.uniform(level), "precision_0": name}
        measured = asked.measure(params)
        scores = [answer.score for answer in measured.answers]
        found[f"{level}/{name}"] = {"memory": measured.values[1], "scores": scores}
    return found


def _print_costs(found: Mapping[str, Any]) -> None:
    """Print what rounding costs, paired over questions."""
    print("| uniform weight | precision | bytes | accuracy | less than in bfloat16, paired |")
    print("|---|---|---|---|---|")
    for key, each in found.items():
        level, name = key.split("/")
        scores = np.array(each["scores"])
        lost = np.array(found[f"{level}/bfloat16"]["scores"]) - scores
        error = float(lost.std(ddof=1)) / len(lost) ** 0.5
        told = "" if name == "bfloat16" else f"{lost.mean():+.3f} ± {error:.3f}"
        print(f"| {level} | `{name}` | {each['memory']:.0f} | {scores.mean():.3f} | {told} |")


@dataclass
class _Bench:
    """All ways with one seed.

    Args:
        pair: That is searched.
        joint: Inputs of the study over weights and precisions.
        plain: Of the study over weights in the first precision.
    """

    pair: Pair
    joint: StudyInputs
    plain: StudyInputs
    _fresh_values: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, pair: Pair, out: Path, seed: int) -> "_Bench":
        """Return that of a seed, with its questions in a folder of its own."""
        folder = out / str(seed)
        joint = pair.inputs(folder, seed, BUDGET, pair.searched, ("accuracy", "memory"))
        return cls(pair, joint, pair.inputs(folder, seed, BUDGET, {}, ("accuracy",)))

    @cached_property
    def search(self) -> MergeObjective:
        """Asks the search's questions."""
        return make_objective(self.joint)

    @cached_property
    def fresh(self) -> MergeObjective:
        """Asks questions that no search saw."""
        return make_objective(self.joint, "test")

    def volumes(self) -> dict[str, float]:
        """Return each way's validated hypervolume.

        Of the budget some is spent before anything is rounded: the best model then gets all other
        precisions, or the best two each one for all layers.
        """
        first, *fewer = choices = self.pair.choices
        joint = self._together()
        plain = self._study(self.plain)
        rows = product(choices, repeat=self.pair.n_groups)
        others = [row for row in rows if {*row} != {first}]
        n = BUDGET - len(others)
        self._go_on(self.plain, plain, n)
        (best,) = self._best(plain, 1)
        every = self._rounded(list(plain.trials), [(best, row) for row in others])
        m = BUDGET - 2 * len(fewer)
        self._go_on(self.plain, plain, m)
        alike = [(name,) * self.pair.n_groups for name in fewer]
        two = self._rounded(plain.trials, list(product(self._best(plain, 2), alike)))
        return {
            "joint": self._volume(joint),
            f"{n} in {first}, then the best in all {len(others)} other precisions": (
                self._volume(every)
            ),
            f"{m} in {first}, then the two best in {' and '.join(fewer)}": self._volume(two),
        }

    def _together(self) -> optuna.Study:
        """Search weights and precisions with the whole budget, as a worker does."""
        study = self._study(self.joint)
        self._go_on(self.joint, study, BUDGET)
        return study

    def _study(self, inputs: StudyInputs) -> optuna.Study:
        study = optuna.create_study(directions=inputs.spec.directions)
        study.set_user_attr(IMPORTANCE, compute_importance(inputs))
        study.sampler = make_sampler(inputs, study)
        for trial in first_trials(inputs.spec, inputs.plan):
            study.enqueue_trial(trial.params)
        return study

    def _go_on(self, inputs: StudyInputs, study: optuna.Study, until: int) -> None:
        space, n = search_space(inputs.spec, inputs.plan), len(inputs.spec.directions)
        while len(study.get_trials(states=(TrialState.COMPLETE,))) < until:
            trial = study.ask(space)
            measured = self._measured(trial.params)
            trial.set_user_attr("standard_errors", list(measured.standard_errors)[:n])
            trial.set_user_attr("measured", [measured.values, measured.standard_errors])
            study.tell(trial, measured.values[:n])

    def _measured(self, params: Params) -> Measurement:
        """Measure a merge; where no precision is given, in the first."""
        return self.search.measure({**self._whole, **params})

    @property
    def _whole(self) -> dict[str, str]:
        return dict.fromkeys(self.pair.names, self.pair.choices[0])

    def _best(self, study: optuna.Study, n: int) -> list[Params]:
        """Return what is believed to be most accurate."""
        believed = denoise(study)
        order = believed.means[:, 0].argsort(descending=True)[:n].tolist()
        return [believed.trials[row].params for row in order]

    def _rounded(
        self,
        first: Sequence[optuna.trial.FrozenTrial],
        more: Sequence[tuple[Params, Sequence[str]]],
    ) -> optuna.Study:
        """Return a study of weights and precisions that holds both parts of a search."""
        study = optuna.create_study(directions=self.joint.spec.directions)
        for trial in first:
            if trial.state == TrialState.COMPLETE:
                self._add(study, trial.params, *trial.user_attrs["measured"])
        for params, row in more:
            rounded = {**params, **dict(zip(self.pair.names, row, strict=True))}
            measured = self._measured(rounded)
            self._add(study, rounded, measured.values, measured.standard_errors)
        return study

    def _add(
        self,
        study: optuna.Study,
        params: Params,
        values: Sequence[float],
        errors: Sequence[float],
    ) -> None:
        whole = {**self._whole, **params}
        space = search_space(self.joint.spec, self.joint.plan)
        study.add_trial(
            create_trial(
                params=whole,
                distributions=space,
                values=list(values),
                user_attrs={"standard_errors": list(errors)},
            )
        )

    def _volume(self, study: optuna.Study) -> float:
        """Return the hypervolume of the front of a study's denoised values, measured afresh."""
        believed = denoise(study)
        front = is_non_dominated(believed.means * signs(study.directions)).nonzero().flatten()
        values = [self._fresh(believed.trials[row].params) for row in front.tolist()]
        return hypervolume(
            torch.tensor(values, dtype=torch.double), self._reference, study.directions
        )

    def _fresh(self, params: Params) -> tuple[float, float]:
        """Return accuracy on fresh questions, and memory in units of the whole model's."""
        key = json.dumps(params, sort_keys=True)
        if key not in self._fresh_values:
            self._fresh_values[key] = self.fresh.measure(params).values
        accuracy, memory = self._fresh_values[key]
        return accuracy, memory / self._unit

    @property
    def _unit(self) -> float:
        return float(self.joint.recipe.sizes[self.pair.choices[0]])

    @cached_property
    def _reference(self) -> list[float]:
        """A tenth of the range beyond the worse: of the parents' accuracy, and of memory."""
        plan, sizes = self.joint.plan, self.joint.recipe.sizes
        parents = [self._fresh(params)[0] for params in (plan.uniform(0.0), plan.expert(1))]
        least = min(sizes.values()) / self._unit
        return [min(parents) - 0.1 * abs(parents[0] - parents[1]), 1 + 0.1 * (1 - least)]


if __name__ == "__main__":
    main()
