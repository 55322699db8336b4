"""What racing saves, and what it costs: tokens spent and validated hypervolume, on the demo pair.

    make bench-racing

Each row is the demo study with one setting of `evaluation.racing`, over the same seeds as the row
without. Fronts are measured on the split `test`; hypervolumes share one reference point; the
differences are paired by seed.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import front as fronts
import optuna

from mergefront.objectives import MergeObjective
from mergefront.study import StudySpec
from mergefront.study.results.front import front_report
from mergefront.study.run import make_objective, run
from mergefront.study.spec.inputs import StudyInputs
from mergefront.study.storage.connection import load_study

# The parents' on the search's questions, a tenth of their range beyond the worse one.
REFERENCE = (0.606875, 27.048125)
VARIANTS: dict[str, dict[str, Any] | None] = {
    "all questions": None,
    "share .5": {"share": 0.5},
    "share .4": {"share": 0.4},
    "share .4, clearly worse stop at .2": {"share": 0.4, "blocks": [0.2]},
    "share .3, unbeaten answer all": {"share": 0.3, "strong_share": 1.0},
    "all, clearly worse stop at .25 and .5": {"share": 1.0, "blocks": [0.25, 0.5]},
}


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/front"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    inputs = StudyInputs.of(_spec(arguments.out, "all questions", 0))
    objective = make_objective(inputs, fronts.SPLIT)
    print("| racing | tokens, share | stopped early | hypervolume, fresh | less all questions |")
    print("|---|---|---|---|---|")
    whole: list[tuple[float, float, float]] = []
    for name in VARIANTS:
        rows = [_measured(arguments.out, name, seed, objective) for seed in arguments.seeds]
        whole = whole or rows
        shares = [row[0] / full[0] for row, full in zip(rows, whole, strict=True)]
        changes = [row[2] - full[2] for row, full in zip(rows, whole, strict=True)]
        columns = (shares, [row[1] for row in rows], [row[2] for row in rows], changes)
        print(f"| {name} | {' | '.join(map(_mean, columns))} |", flush=True)


def _spec(out: Path, name: str, seed: int) -> StudySpec:
    racing: Mapping[str, Any] | None = VARIANTS[name]
    label = "".join(c if c.isalnum() else "-" for c in name)
    # The runs without racing are those of the table of fronts.
    folder = f"seed-{seed}" if racing is None else f"racing-{label}-{seed}"
    content = fronts.study_spec(out, folder, 60, seed).model_dump(mode="json")
    content["evaluation"]["racing"] = racing
    return StudySpec.parse(content, fronts.SPEC.parent)


def _measured(
    out: Path, name: str, seed: int, objective: MergeObjective
) -> tuple[float, float, float]:
    """Return tokens generated, candidates stopped, and the front's validated hypervolume."""
    spec = _spec(out, name, seed)
    run(StudyInputs.of(spec))
    study = load_study(spec)
    report = front_report(study, spec)
    models = [objective.measure(trial.params) for trial in report.trials]
    volumes = fronts.volumes_of(
        fronts.Front(report, models), objective, REFERENCE, report.directions
    )
    trials = study.get_trials(deepcopy=False)
    tokens = sum(trial.user_attrs.get("generated_tokens", 0) for trial in trials)
    stopped = sum(trial.state == optuna.trial.TrialState.PRUNED for trial in trials)
    return float(tokens), float(stopped), float(volumes[0])


def _mean(values: Sequence[float]) -> str:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{fmean(values):.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
