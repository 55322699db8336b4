"""What a study of the demo pair's knows for the next one, which asks other questions.

    PYTHONPATH=benchmarks/evaluation python benchmarks/transfer/warm_demo.py
    PYTHONPATH=benchmarks/evaluation python benchmarks/transfer/warm_demo.py --seed 1
    PYTHONPATH=benchmarks/evaluation python benchmarks/transfer/warm_demo.py --layers 12

For every seed the demo study (60 candidates on the 320 questions of `search`) is the source of a
study with another seed on 320 questions of `validation`. After some of its evaluations its front
is measured on the 640 questions of `test`, with the source and without; hypervolumes share one
reference point, and differences are paired by seed. `--seed` and `--layers` train another pair,
which is the one that is searched.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import front as fronts
import numpy as np
import optuna
import torch
from racing import REFERENCE, _mean

from mergefront.examples.demo.train import Schedule, train_pair
from mergefront.objectives import MergeObjective
from mergefront.study import StudySpec
from mergefront.study.results.front import front_report
from mergefront.study.run import make_objective, run
from mergefront.study.spec.inputs import StudyInputs
from mergefront.study.storage.connection import load_study

LOOKS = (16, 24, 36, 60)
_QUESTIONS = 320
_OTHER_SEED = 100


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/front"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seed", type=int, default=Schedule.seed, help="of the pair searched")
    parser.add_argument(
        "--layers", type=int, default=Schedule.n_layers, help="of the pair searched"
    )
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    text = (fronts.SPEC.parent / "demo/questions/validation.jsonl").read_text()
    (out / "other.jsonl").write_text("".join(text.splitlines(keepends=True)[:_QUESTIONS]))
    pair = _pair(out, Schedule(seed=arguments.seed, n_layers=arguments.layers))
    objective = make_objective(StudyInputs.of(_spec(out, pair, 0, False, 60)), "test")
    reference = REFERENCE if pair is None else _reference(objective)
    rows: dict[bool, list[list[float]]] = {False: [], True: []}
    for seed in arguments.seeds:
        run(StudyInputs.of(fronts.study_spec(out, f"seed-{seed}", 60, seed)))
        for knows in rows:
            ends = [_front(_spec(out, pair, seed, knows, n), objective) for n in LOOKS]
            rows[knows].append([_volume(front, objective, reference) for front in ends])
    _print(rows)


def _print(rows: dict[bool, list[list[float]]]) -> None:
    print(f"| earlier study | {' | '.join(f'{n} evaluations' for n in LOOKS)} |")
    print(f"|---{'|---' * len(LOOKS)}|")
    for knows, name in ((False, "none"), (True, "search's questions")):
        print(f"| {name} | {' | '.join(map(_mean, zip(*rows[knows], strict=True)))} |")
    pairs = zip(rows[True], rows[False], strict=True)
    changes = [[a - b for a, b in zip(*pair, strict=True)] for pair in pairs]
    print(f"| difference | {' | '.join(map(_mean, zip(*changes, strict=True)))} |")
    whole = [row[-1] for row in rows[False]]
    for place, n in enumerate(LOOKS[:-1]):
        less = [row[place] - end for row, end in zip(rows[True], whole, strict=True)]
        print(f"With the source after {n}, less without after {LOOKS[-1]}: {_mean(less)}")


def _pair(out: Path, schedule: Schedule) -> Path | None:
    """Train the pair that is searched, if it is not there yet; None for the demo pair itself."""
    if schedule == Schedule():
        return None
    folder = out / f"pair-{schedule.seed}-{schedule.n_layers}"
    if not (folder / "questions").exists():
        train_pair(folder, schedule)
    return folder.resolve()


def _reference(objective: MergeObjective) -> list[float]:
    """Return what lies a tenth of the parents' range beyond the worse one, on fresh questions."""
    parents = [objective.measure(objective.plan.uniform(level)).values for level in (0.0, 1.0)]
    (low, few), (high, many) = np.sort(np.array(parents), axis=0)
    return [float(low - 0.1 * (high - low)), float(many + 0.1 * (many - few))]


def _front(spec: StudySpec, objective: MergeObjective) -> fronts.Front:
    """Search as far as the spec says, and measure the front on fresh questions."""
    run(StudyInputs.of(spec))
    report = front_report(load_study(spec), spec)
    return fronts.Front(report, [objective.measure(trial.params) for trial in report.trials])


def _volume(front: fronts.Front, objective: MergeObjective, point: Sequence[float]) -> float:
    return float(fronts.volumes_of(front, objective, point, front.report.directions)[0])


def _spec(out: Path, pair: Path | None, seed: int, knows: bool, n: int) -> StudySpec:
    name = f"{'warm' if knows else 'cold'}-{seed}{'' if pair is None else '-' + pair.name}"
    content = fronts.study_spec(out, name, n, seed + _OTHER_SEED).model_dump(mode="json")
    files = content["evaluation"]["tasks"][0]["files"]
    files["search"] = str((out / "other.jsonl").resolve())
    del files["validation"]  # its questions are these
    if pair is not None:
        content["models"] |= {"base": str(pair / "base"), "experts": [str(pair / "expert")]}
    if knows:
        source = fronts.study_spec(out, f"seed-{seed}", 60, seed).study
        content["sampler"]["warm_start"] = [f"{source.storage}#{source.name}"]
    return StudySpec.parse(content, fronts.SPEC.parent)


if __name__ == "__main__":
    main()
