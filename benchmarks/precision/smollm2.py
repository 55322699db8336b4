"""What rounding costs two merges of a real language model (`make runs/smollm2/base`).

    PYTHONPATH=benchmarks/smollm2 python benchmarks/precision/smollm2.py

The merges are the landmarks of benchmarks/smollm2: the talker itself, and weight 1 in the layers
that learned to reason alone. Each is asked the first questions of the split `validation` in every
precision; differences from weights that are not rounded are paired by question. `--dtype float32`
computes, and has scales, in that precision: for CPUs that are slow in bfloat16.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from landmarks import first_of, weights_of

from mergefront.objectives import Measurement
from mergefront.objectives.evaluation.tasks import Split
from mergefront.study import StudySpec
from mergefront.study.run import make_objective
from mergefront.study.spec.inputs import StudyInputs

REPOSITORY = Path(__file__).resolve().parents[2]
ROUNDED = ["fp8", "int8", "int4"]
SPLIT: Split = "validation"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=150, help="questions")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    whole, rounded = (
        make_objective(first_of(_inputs(arguments.dtype, rounds), SPLIT, arguments.first), SPLIT)
        for rounds in (False, True)
    )
    print("| weights | precision | accuracy | less than without rounding, paired | tokens |")
    print("|---|---|---|---|---|")
    for label, weights in list(weights_of(whole).items())[-2:]:
        best = whole.measure(weights)
        print(f"| {label} | `{arguments.dtype}` | {_cells(best, best)} |", flush=True)
        for name in ROUNDED:
            measured = rounded.measure({**weights, "precision_0": name})
            print(f"| {label} | `{name}` | {_cells(measured, best)} |", flush=True)


def _cells(measured: Measurement, whole: Measurement) -> str:
    scores, best = (np.array([a.score for a in m.answers]) for m in (measured, whole))
    lost = best - scores
    error = lost.std(ddof=1) / len(lost) ** 0.5
    told = "" if measured is whole else f"{lost.mean():+.3f} ± {error:.3f}"
    accuracy, tokens = measured.values[:2]
    return f"{accuracy:.3f} | {told} | {tokens:.1f} ± {measured.standard_errors[1]:.1f}"


def _inputs(dtype: str, rounds: bool) -> StudyInputs:
    path = REPOSITORY / "examples" / "smollm2" / "study.yaml"
    content = StudySpec.from_yaml(path).model_dump(mode="json")
    content["study"]["name"] = "smollm2-precision"
    content["models"]["dtype"] = dtype
    if rounds:
        content["merge"]["precision"] = {"choose": ROUNDED}
        content["objectives"].append({"metric": "memory"})
    content["criteria"] = []
    content["evaluation"]["racing"] = None
    return StudyInputs.of(StudySpec.parse(content, path.parent))


if __name__ == "__main__":
    main()
