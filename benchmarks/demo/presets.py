"""Run the demo study with several samplers and seeds, and check every front on the test split.

    python benchmarks/demo/presets.py --seeds 5 --out runs/presets

Every run has the demo's budget and starts from the same parents and uniform merges; every front
is denoised by the same surrogate, whoever proposed its points. One row per preset: hypervolume on
the 640 questions of `test`, mean over seeds with its standard error; below, what the uniform
merges of the same studies reach on the same questions. Finished runs are resumed, not repeated.
"""

import argparse
import logging
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import optuna
import torch

from mergefront.study import StudySpec
from mergefront.study.results.front import front_report
from mergefront.study.results.validation import Validation, validate
from mergefront.study.run import make_objective, run
from mergefront.study.spec.inputs import StudyInputs
from mergefront.study.storage.connection import load_study

SPEC = Path(__file__).parents[2] / "examples" / "demo.yaml"
PRESETS = ("mergefront", "qnehvi", "gp", "tpe", "random")


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    print("| preset | front, search split | front, test split | test minus uniform |")
    print("|---|---|---|---|", flush=True)
    uniform = 0.0
    for preset in arguments.presets:
        pairs = [_validated(preset, seed, arguments.out) for seed in range(arguments.seeds)]
        search = [validation.report.hypervolume for validation in pairs]
        test = [validation.hypervolume["front"] for validation in pairs]
        uniform = pairs[0].hypervolume["uniform"]  # the same merges and questions in every run
        gains = [value - uniform for value in test]
        print(f"| {preset} | {_mean(search)} | {_mean(test)} | {_mean(gains)} |", flush=True)
    print(f"\nuniform merges on the test split: {uniform:.3f}")


def _validated(preset: str, seed: int, out: Path) -> Validation:
    content = StudySpec.from_yaml(SPEC).model_dump(mode="json")
    content["study"] |= {
        "name": f"{preset}-{seed}",
        "seed": seed,
        "storage": f"sqlite:///{out}/{preset}-{seed}.db",
    }
    content["sampler"]["preset"] = preset
    spec = StudySpec.parse(content, SPEC.parent)
    inputs = StudyInputs.of(spec)
    run(inputs)
    study = load_study(spec)
    report = front_report(study, spec)
    return validate(report, study, make_objective(inputs, "test"), "test")


def _mean(values: list[float]) -> str:
    error = stdev(values) / sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{fmean(values):.3f} ± {error:.3f}"


if __name__ == "__main__":
    main()
