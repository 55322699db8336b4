"""What is left of a front on fresh questions, beside the uniform curve at the same budget.

    make bench-front

For every seed the demo study is searched, its denoised front is measured on the split `test`, and
so is the denoised front of a study whose whole budget went into uniform merges (it has no seed:
nothing in it is drawn). Hypervolumes share one reference point; intervals are bootstrap intervals
over questions, paired: each resample asks all models the same questions.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from mergefront.objectives import Measurement, MergeObjective
from mergefront.study import StudySpec
from mergefront.study.results.front import FrontReport, front_report, hypervolume
from mergefront.study.results.validation import resample_questions, validate
from mergefront.study.run import make_objective, run
from mergefront.study.spec.inputs import StudyInputs
from mergefront.study.storage.connection import load_study

SPEC = Path(__file__).resolve().parents[2] / "examples" / "demo.yaml"
SPLIT = "test"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Front:
    """A study's front on fresh questions.

    Args:
        report: Of the search.
        models: The front's models on the split.
    """

    report: FrontReport
    models: list[Measurement]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/front"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=60)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    out, trials = arguments.out, arguments.trials
    objective = make_objective(
        StudyInputs.of(study_spec(out, "uniform", trials, 0, uniform=True)), SPLIT
    )
    uniform = _front(study_spec(out, "uniform", trials, 0, uniform=True), objective)
    point, directions = uniform.report.reference_point, uniform.report.directions
    baseline = volumes_of(uniform, objective, point, directions)
    print(
        f"Uniform merges, {trials} of them: on the search's questions "
        f"{uniform.report.hypervolume:.3f}, on fresh ones {_shown(baseline)}; "
        f"{len(uniform.models)} models.\n"
    )
    print("| seed | models | search | fresh | fresh, less uniform | survives | beyond |")
    print("|---|---|---|---|---|---|---|")
    rows = []
    for seed in range(arguments.seeds):
        spec = study_spec(out, f"seed-{seed}", trials, seed)
        front = _front(spec, objective)
        volumes = volumes_of(front, objective, point, directions)
        study = load_study(spec)
        validation = validate(front.report, study, objective, SPLIT)
        beyond = sum(model.distinguishable for model in validation.models)
        survives = validation.survives or float("nan")
        searched = hypervolume(front.report.denoised.means, point, study.directions)
        print(
            f"| {seed} | {len(front.models)} | {searched:.3f} | {_shown(volumes)} | "
            f"{_shown(volumes - baseline)} | {survives:.2f} | {beyond} |",
            flush=True,
        )
        rows.append((searched, volumes[0], volumes[0] - baseline[0], survives))
    print("| mean | | " + " | ".join(_mean(column) for column in zip(*rows, strict=True)) + " | |")


def study_spec(out: Path, name: str, trials: int, seed: int, uniform: bool = False) -> StudySpec:
    """Return the demo study under a name of its own, all answers in one file."""
    content = StudySpec.from_yaml(SPEC).model_dump(mode="json")
    storage = f"sqlite:///{(out / name).resolve()}/study.db"
    content["study"] |= {"name": name, "storage": storage, "trials": trials, "seed": seed}
    content["evaluation"]["cache"] = str((out / "answers.db").resolve())
    if uniform:
        content["sampler"]["n_startup_trials"] = trials
    return StudySpec.parse(content, SPEC.parent)


def _front(spec: StudySpec, objective: MergeObjective) -> Front:
    inputs = StudyInputs.of(spec)
    run(inputs)
    report = front_report(load_study(spec), spec)
    return Front(report, [objective.measure(trial.params) for trial in report.trials])


def volumes_of(
    front: Front, objective: MergeObjective, point: Sequence[float], directions: Sequence[str]
) -> Array:
    """Return the front's hypervolume on the split, then in every resample of its questions."""
    answers = front.models[0].answers
    counts = np.concatenate([np.ones((1, len(answers))), resample_questions(answers)])
    values = np.array(
        [[o.resampled(m.answers, counts) for o in objective.metrics] for m in front.models]
    ).transpose(2, 0, 1)
    ways = [optuna.study.StudyDirection[name.upper()] for name in directions]
    return np.array([hypervolume(torch.from_numpy(v), point, ways) for v in values])


def _shown(volumes: Array) -> str:
    low, high = np.percentile(volumes[1:], (2.5, 97.5))
    return f"{volumes[0]:.3f} [{low:.3f}, {high:.3f}]"


def _mean(values: Sequence[float]) -> str:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{fmean(values):.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
