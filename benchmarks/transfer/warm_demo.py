"""What a study of the demo pair's knows for the next one, which asks other questions.

    PYTHONPATH=benchmarks/evaluation python benchmarks/transfer/warm_demo.py

For every seed the demo study (60 candidates on the 320 questions of `search`) is the source of a
study with another seed on 320 questions of `validation`. After some of its evaluations its front
is measured on the 640 questions of `test`, with the source and without; hypervolumes share one
reference point, and differences are paired by seed.
"""

import argparse
from pathlib import Path

import front as fronts
import optuna
from racing import REFERENCE, _mean

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
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    text = (fronts.SPEC.parent / "demo/questions/validation.jsonl").read_text()
    (out / "other.jsonl").write_text("".join(text.splitlines(keepends=True)[:_QUESTIONS]))
    objective = make_objective(StudyInputs.of(fronts.study_spec(out, "seed-0", 60, 0)), "test")
    rows: dict[bool, list[list[float]]] = {False: [], True: []}
    for seed in arguments.seeds:
        run(StudyInputs.of(fronts.study_spec(out, f"seed-{seed}", 60, seed)))
        for knows in rows:
            rows[knows].append([_volume(out, seed, knows, n, objective) for n in LOOKS])
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


def _volume(out: Path, seed: int, knows: bool, n: int, objective: MergeObjective) -> float:
    """Return the front's hypervolume on fresh questions after `n` evaluations."""
    spec = _spec(out, seed, knows, n)
    run(StudyInputs.of(spec))
    report = front_report(load_study(spec), spec)
    models = [objective.measure(trial.params) for trial in report.trials]
    front = fronts.Front(report, models)
    return float(fronts.volumes_of(front, objective, REFERENCE, report.directions)[0])


def _spec(out: Path, seed: int, knows: bool, n: int) -> StudySpec:
    name = f"{'warm' if knows else 'cold'}-{seed}"
    content = fronts.study_spec(out, name, n, seed + _OTHER_SEED).model_dump(mode="json")
    files = content["evaluation"]["tasks"][0]["files"]
    files["search"] = str((out / "other.jsonl").resolve())
    del files["validation"]  # its questions are these
    if knows:
        source = fronts.study_spec(out, f"seed-{seed}", 60, seed).study
        content["sampler"]["warm_start"] = [f"{source.storage}#{source.name}"]
    return StudySpec.parse(content, fronts.SPEC.parent)


if __name__ == "__main__":
    main()
