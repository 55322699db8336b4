"""What rounding costs two merges of a real language model (`make runs/smollm2/base`).

    PYTHONPATH=benchmarks/smollm2 python benchmarks/precision/smollm2.py

The merges are the landmarks of benchmarks/smollm2: the talker itself, and weight 1 in the layers
that learned to reason alone. Each is asked the first questions of the split `validation` in every
precision; differences from bfloat16 are paired by question.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from landmarks import first_of, weights_of

from mergefront.objectives.evaluation.tasks import Split
from mergefront.study import StudySpec
from mergefront.study.run import make_objective
from mergefront.study.spec.inputs import StudyInputs

REPOSITORY = Path(__file__).resolve().parents[2]
PRECISIONS = ["bfloat16", "fp8", "int8", "int4"]
SPLIT: Split = "validation"


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=150, help="questions")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    objective = make_objective(first_of(_inputs(), SPLIT, arguments.first), SPLIT)
    print("| weights | precision | MB | accuracy | less than in bfloat16, paired | tokens |")
    print("|---|---|---|---|---|---|")
    for label, weights in list(weights_of(objective).items())[-2:]:
        whole: np.ndarray | None = None
        for name in PRECISIONS:
            measured = objective.measure({**weights, "precision_0": name})
            scores = np.array([answer.score for answer in measured.answers])
            whole = scores if whole is None else whole
            lost = whole - scores
            error = lost.std(ddof=1) / len(lost) ** 0.5
            told = "" if name == PRECISIONS[0] else f"{lost.mean():+.3f} ± {error:.3f}"
            accuracy, tokens, memory = measured.values
            print(
                f"| {label} | `{name}` | {memory / 1e6:.0f} | {accuracy:.3f} | {told} | "
                f"{tokens:.1f} ± {measured.standard_errors[1]:.1f} |",
                flush=True,
            )


def _inputs() -> StudyInputs:
    path = REPOSITORY / "examples" / "smollm2" / "study.yaml"
    content = StudySpec.from_yaml(path).model_dump(mode="json")
    content["study"]["name"] = "smollm2-precision"
    content["models"]["dtype"] = "bfloat16"
    content["merge"]["precision"] = {"choose": PRECISIONS}
    content["objectives"] = [{"metric": name} for name in ("accuracy", "tokens", "memory")]
    content["criteria"] = []
    content["evaluation"]["racing"] = None
    return StudyInputs.of(StudySpec.parse(content, path.parent))


if __name__ == "__main__":
    main()
