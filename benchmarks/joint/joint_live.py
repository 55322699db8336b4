"""One study over three operators on live models, beside other ways to spend the same answers.

    make bench-joint

Every way gets 24 evaluations of 120 questions; each seed has its own questions. What counts is the
hypervolume of the reported front (denoised) on 256 fresh questions of each task. Finished runs are
kept in the folder and not repeated.
"""

import argparse
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
import torch
from botorch.utils.multi_objective.pareto import is_non_dominated
from joint_pairs import DEMO, PAIRS, sections
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from mergefront.objectives import MergeObjective
from mergefront.samplers import ArmSampler, PerTrialSampler, SIPSampler, denoise, signs
from mergefront.study import StudySpec
from mergefront.study.first_trials import first_trials, same_models, search_space
from mergefront.study.results.front import hypervolume
from mergefront.study.run import make_objective
from mergefront.study.spec.inputs import StudyInputs

OPERATORS = [
    "linear",
    {"name": "ties", "density": 0.5},
    {"name": "dare_linear", "density": 0.5},
]
BUDGET = 24


def main() -> None:
    """Run what is missing, then print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/joint"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pair", choices=PAIRS, default=DEMO)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    seeds, out = range(arguments.seeds), arguments.out / arguments.pair
    found = [_load_or_run(out, arguments.pair, seed) for seed in seeds]
    print(f"\n{arguments.pair}, {len(found)} seeds\n")
    print("| way | validated hypervolume | less than joint's |")
    print("|---|---|---|")
    for name in found[0]["volumes"]:
        volumes = [each["volumes"][name] for each in found]
        less = [each["volumes"]["joint"] - v for each, v in zip(found, volumes, strict=True)]
        print(f"| {name} | {_mean(volumes)} | {'' if name == 'joint' else _mean(less)} |")
    print("\n| evaluations of joint's | " + " | ".join(found[0]["spent"]) + " |")
    print("|---|" + "---|" * len(found[0]["spent"]))
    shares = [_mean([each["spent"][name] for each in found], 1) for name in found[0]["spent"]]
    print(f"| mean | {' | '.join(shares)} |")


def _mean(values: Sequence[float], digits: int = 3) -> str:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{fmean(values):.{digits}f} ± {error:.{digits}f}"


def _load_or_run(out: Path, pair: str, seed: int) -> dict[str, Any]:
    path = out / f"{seed}.json"
    if not path.exists():
        folder = out / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        content = _Bench(_inputs(pair, folder, seed), seed).results()
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content))
        part.rename(path)
    content = json.loads(path.read_text())
    return dict(content)


def _inputs(pair: str, folder: Path, seed: int) -> StudyInputs:
    """Write the questions of a seed and return the inputs of the study over all operators."""
    spec = {
        "study": {"name": "joint", "storage": f"sqlite:///{folder}/study.db", "trials": BUDGET},
        "merge": {"operator": OPERATORS},
        **sections(pair, folder, seed),
    }
    return StudyInputs.of(StudySpec.parse(spec, folder))


@dataclass
class _Bench:
    """All ways with one seed.

    Args:
        inputs: Of the study over all operators.
        seed: Of the samplers.
    """

    inputs: StudyInputs
    seed: int

    @cached_property
    def search(self) -> MergeObjective:
        """Asks the search's questions."""
        return make_objective(self.inputs)

    @cached_property
    def fresh(self) -> MergeObjective:
        """Asks questions that no search saw."""
        return make_objective(self.inputs, "test")

    @cached_property
    def operators(self) -> list[str]:
        """Their labels."""
        return self.inputs.plan.settings.choices["operator"]

    def results(self) -> dict[str, Any]:
        """Return each way's validated hypervolume, and what the joint study spent on whom."""
        joint = self._study(self.operators, BUDGET)
        fixed = {o: self._volume([self._study([o], BUDGET)]) for o in self.operators}
        share = BUDGET // len(self.operators)
        split = [self._study([operator], share) for operator in self.operators]
        volumes = {
            "joint": self._volume([joint]),
            "best fixed operator, known afterwards": max(fixed.values()),
            "fixed operator, mean of all": fmean(fixed.values()),
            "a study per operator, budget split": self._volume(split),
            "tpe over the same space": self._volume([self._study(self.operators, BUDGET, "tpe")]),
            **{f"fixed: {name}": volume for name, volume in fixed.items()},
        }
        spent = {o: sum(t.params["operator"] == o for t in joint.trials) for o in self.operators}
        return {"volumes": volumes, "spent": spent}

    def _study(self, operators: Sequence[str], budget: int, way: str = "sip") -> optuna.Study:
        """Search over some of the operators."""
        space = search_space(self.inputs.spec, self.inputs.plan)
        fixed = {"operator": operators[0]} if len(operators) == 1 else {}
        own = {name: d for name, d in space.items() if name not in fixed}
        study = optuna.create_study(directions=self.inputs.spec.directions)
        first = list(self._first(fixed, budget))
        study.sampler = self._sampler(own, way, min(8, len(first)))
        for params in first:
            study.enqueue_trial({name: params[name] for name in own})
        for _ in range(budget):
            trial = study.ask(own)
            measured = self.search.measure({**trial.params, **fixed})
            trial.set_user_attr("standard_errors", list(measured.standard_errors))
            trial.set_user_attr("params", {**trial.params, **fixed})
            study.tell(trial, measured.values)
        return study

    def _first(self, fixed: dict[str, str], budget: int) -> Iterator[dict[str, Any]]:
        """Yield parents and uniform merges, as a study of the spec begins."""
        plan, spec = self.inputs.plan, self.inputs.spec
        if fixed:
            content = spec.model_dump(mode="json")
            content["study"]["trials"] = budget
            content["sampler"]["n_startup_trials"] = 8 if budget == BUDGET else 5
            arm = plan.settings.arm_of(fixed)
            own = self.inputs.of_arm(fixed)
            alone = StudySpec.parse({**content, "merge": own.spec.merge.model_dump()}, spec.folder)
            for trial in first_trials(alone, plan.arms[arm]):
                yield {**trial.params, **fixed}
        else:
            yield from (trial.params for trial in first_trials(spec, plan))

    def _sampler(self, space: dict[str, BaseDistribution], way: str, n: int) -> BaseSampler:
        plan = self.inputs.plan
        arms = [plan.arm_params(place) for place in range(len(plan.arms))]
        if way == "tpe":
            inner = PerTrialSampler(lambda s: TPESampler(seed=s, n_startup_trials=0), self.seed)
            return ArmSampler(inner, arms)
        if "operator" not in space:
            return SIPSampler(seed=self.seed, n_startup_trials=n, search_space=space)
        return SIPSampler(  # as a worker of the study makes it
            seed=self.seed,
            n_startup_trials=n,
            search_space=space,
            arms=arms,
            same=same_models(plan),
            repeats=False,
        )

    def _volume(self, studies: Sequence[optuna.Study]) -> float:
        """Return the hypervolume of the front of all studies' denoised values, measured afresh."""
        directions = studies[0].directions
        believed = [denoise(study) for study in studies]
        means = torch.cat([each.means for each in believed])
        trials: list[FrozenTrial] = [trial for each in believed for trial in each.trials]
        front = is_non_dominated(means * signs(directions)).nonzero().flatten().tolist()
        values = [self.fresh.measure(trials[row].user_attrs["params"]).values for row in front]
        return hypervolume(torch.tensor(values, dtype=torch.double), self._reference, directions)

    @cached_property
    def _reference(self) -> list[float]:
        """A tenth of the parents' range beyond the worst parent, on fresh questions."""
        plan, directions = self.inputs.plan, self.inputs.spec.directions
        parents = [
            plan.uniform(0.0),
            *(plan.expert(k + 1) for k in range(plan.settings.n_experts)),
        ]
        values = np.array([self.fresh.measure(params).values for params in parents])
        better = np.array([1 if direction == "maximize" else -1 for direction in directions])
        worst = (values * better).min(axis=0) * better
        reference: list[float] = (worst - 0.1 * better * np.ptp(values, axis=0)).tolist()
        return reference


if __name__ == "__main__":
    main()
