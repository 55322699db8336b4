"""One study over operators, experts and order on the catalogue's committed table.

    make bench-joint

Each problem is one of the table's triples: which of three experts to merge, by which operator and
in which order, for their three skills together. What is measured is drawn from the table, 50
answers a skill. What counts is what is lost of the best accuracy in the table by the merge that
the study believes to be best. Finished runs are kept in the folder and not repeated.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import optuna
import torch
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from table import OPERATORS, Table
from table_problem import TableProblem

from mergefront.samplers import ArmSampler, PerTrialSampler, SIPSampler, denoise
from mergefront.samplers.simmerge import Prediction

DATA = Path(__file__).parents[1] / "simmerge" / "data"
BUDGET, N_FIRST, LOOKS = 18, 8, (8, 10, 12, 15, 18)
WAYS = ("joint", "predicted", "predicted-first", "fixed", "split", "tpe", "random")
NAMES = {
    "predicted": "joint, predictions in the surrogate's mean",
    "predicted-first": "joint, the same, and the best predicted measured first",
    "split": "a study per operator, budget split",
    "tpe": "TPE over the same space",
}


@dataclass(frozen=True)
class Predicted:
    """What is predicted of each arm, as what may explain the objective (a `Hint`).

    Args:
        rows: An `arms x d`-dim tensor.
        gains: An `arms`-dim tensor.
        errors: Their standard deviations.
    """

    rows: torch.Tensor
    gains: torch.Tensor
    errors: torch.Tensor

    def mean(self, A: torch.Tensor) -> torch.Tensor:
        """Return the gains."""
        return self.gains[self._places(A)]

    def covariance(self, A: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
        """Return their variance where two points are one arm."""
        a, b = self._places(A), self._places(B)
        return (a[..., :, None] == b[..., None, :]) * self.errors[a].square()[..., None]

    def variance(self, A: torch.Tensor) -> torch.Tensor:
        """Return their variance."""
        return self.errors[self._places(A)].square()

    def _places(self, A: torch.Tensor) -> torch.Tensor:
        return (A.unsqueeze(-2) - self.rows).abs().amax(-1).argmin(-1)


class PredictedSampler(SIPSampler):
    """Knows what is predicted of each arm.

    Args:
        predictions: One an arm.
        **options: Of `SIPSampler`.
    """

    def __init__(self, predictions: Sequence[Prediction], **options: Any) -> None:
        super().__init__(**options)
        gains = np.array([one.gain for one in predictions])
        self._scale = max(float(np.sqrt(np.mean(gains**2))), 1e-6)
        self._predicted = torch.from_numpy(gains / self._scale)
        errors = np.array([one.standard_deviation for one in predictions])
        self._deviations = torch.from_numpy(errors / self._scale)

    def _observations(self, study: Any, cube: Any, measured: Any) -> Any:
        seen = super()._observations(study, cube, measured)
        assert self.arms is not None
        hint = Predicted(self.arms.columns(cube), self._predicted, self._deviations)
        return replace(seen, hints=((hint,),))


def main() -> None:
    """Run what is missing, then print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/joint/table"))
    parser.add_argument("--problems", type=int, default=32, help="of the table's 64 triples")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    triples = sorted(Table(DATA).triples)
    chosen = triples[:: len(triples) // arguments.problems][: arguments.problems]
    with ProcessPoolExecutor(arguments.processes, initializer=_quiet) as pool:
        found = list(pool.map(partial(_load_or_run, arguments.out), chosen))
    print(f"\n| way | {' | '.join(f'{n} evaluations' for n in LOOKS)} |")
    print(f"|---{'|---' * len(LOOKS)}|")
    for way, rows in _rows(found).items():
        cells = []
        for n in map(str, LOOKS):
            more = [row[n] - each["joint"][n] for row, each in zip(rows, found, strict=True)]
            paired = f" ({fmean(more):+.4f} ± {stdev(more) / len(more) ** 0.5:.4f})"
            cells.append(f"{fmean(row[n] for row in rows):.4f}{'' if way == 'joint' else paired}")
        print(f"| {NAMES.get(way, way)} | {' | '.join(cells)} |")


def _rows(found: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, float]]]:
    """Return what every way lost in each problem."""
    rows = {way: [each[way] for each in found] for way in WAYS if way != "fixed"}
    best = min(OPERATORS, key=lambda o: fmean(each["fixed"][o][str(BUDGET)] for each in found))
    mean = [
        {n: fmean(each["fixed"][o][n] for o in OPERATORS) for n in each["joint"]} for each in found
    ]
    fixed = [each["fixed"][best] for each in found]
    return rows | {f"fixed operator, the best on all ({best})": fixed, "fixed operator": mean}


def _quiet() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")


def _load_or_run(out: Path, triple: tuple[str, ...]) -> dict[str, Any]:
    path = out / f"{'_'.join(triple)}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if all(way in found for way in WAYS):
        return found
    problem = TableProblem(Table(DATA), triple, 0)
    predictions = problem.predictions()
    for way in WAYS:
        if way not in found:
            found[way] = _way(problem, predictions, way)
            path.write_text(json.dumps(found))
    return found


def _way(problem: TableProblem, predictions: Sequence[Prediction], way: str) -> dict[str, Any]:
    """Return what is lost after some of the evaluations."""
    if way == "fixed":
        return {o: _lost(problem, [_study(problem, problem.of_operator(o))]) for o in OPERATORS}
    if way == "split":
        share = BUDGET // len(OPERATORS)
        studies = [_study(problem, problem.of_operator(o), share) for o in OPERATORS]
        return _lost(problem, studies)
    everything = list(range(len(problem.arms)))
    first = problem.first
    if way == "predicted-first":
        first = [0, 1, 2, *sorted(everything[3:], key=lambda k: -predictions[k].gain)]
    return _lost(problem, [_study(problem, everything, BUDGET, way, first, predictions)])


def _lost(problem: TableProblem, studies: Sequence[optuna.Study]) -> dict[str, float]:
    """Return what is lost by the best that is believed, after some of all evaluations."""
    lost = {}
    for n in LOOKS:
        best: tuple[float, float] | None = None
        for study in studies:
            part = optuna.create_study(direction="maximize")
            part.add_trials(study.trials[: max(1, n // len(studies))])
            believed = denoise(part)
            row = int(believed.means[:, 0].argmax())
            found = (float(believed.means[row, 0]), believed.trials[row].user_attrs["truth"])
            best = found if best is None else max(best, found)
        assert best is not None
        lost[str(n)] = max(problem.truths) - best[1]
    return lost


def _study(
    problem: TableProblem,
    places: Sequence[int],
    budget: int = BUDGET,
    way: str = "joint",
    first: Sequence[int] | None = None,
    predictions: Sequence[Prediction] = (),
) -> optuna.Study:
    """Search among some of the arms; each is measured once."""
    arms = [problem.arms[k] for k in places]
    order = [k for k in (first or problem.first) if k in places][: min(N_FIRST, budget)]
    study = optuna.create_study(direction="maximize")
    study.sampler = _sampler(problem, arms, way, len(order), predictions)
    for k in order:
        study.enqueue_trial(problem.arms[k])
    for _ in range(min(budget, len(arms)) if way not in ("tpe", "random") else budget):
        trial = study.ask(problem.space)
        chosen = {name: trial.params[name] for name in ("experts", "operator")}
        place = next(k for k in places if chosen.items() <= problem.arms[k].items())
        trial.set_user_attr("standard_errors", [problem.errors[place]])
        trial.set_user_attr("truth", problem.truths[place])
        study.tell(trial, problem.measured[place])
    return study


def _sampler(
    problem: TableProblem,
    arms: Sequence[dict[str, Any]],
    way: str,
    n_first: int,
    predictions: Sequence[Prediction],
) -> BaseSampler:
    makers: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda seed: TPESampler(seed=seed, n_startup_trials=0),
        "random": lambda seed: RandomSampler(seed=seed),
    }
    if way in makers:
        return ArmSampler(PerTrialSampler(makers[way], 0), arms)
    options: dict[str, Any] = {
        "seed": 0,
        "n_startup_trials": n_first,
        "search_space": problem.space,
        "arms": arms,
        "repeats": False,
    }
    if way.startswith("predicted"):
        return PredictedSampler(predictions, **options)
    return SIPSampler(**options)


if __name__ == "__main__":
    main()
