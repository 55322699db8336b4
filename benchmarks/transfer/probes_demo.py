"""How well single-layer probes of the demo pair rank its layers.

    PYTHONPATH=benchmarks/sampler python benchmarks/transfer/probes_demo.py

True effects are the slopes of a least-squares plane through 780 tabulated merges of 480 questions
(`benchmarks/sampler/problems/demo_merges.npz`). Probes change one layer's weight, from the base
(0 to 1) or from the expert (1 to 0), on all or on the first of these questions.
"""

from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from evaluate_merges import TABLE, _objective
from problems.base import Array
from scipy.stats import spearmanr

from mergefront.study import StudySpec
from mergefront.study.importance import compute_importance
from mergefront.study.spec.inputs import StudyInputs

SPEC = Path(__file__).resolve().parents[2] / "examples" / "demo.yaml"
_COUNTS = (40, 160, 480)


def main() -> None:
    """Measure the probes and print the table."""
    torch.set_num_threads(1)
    true, names = slopes()
    objective = _objective()
    print("| probes from | questions | rank correlation: accuracy | tokens | mean |")
    print("|---|---|---|---|---|")
    for start, level in (("the base", 0.0), ("the expert", 1.0)):
        points = np.full((len(names) + 1, len(names)), level)
        points[1:] += np.eye(len(names)) * (1 - 2 * level)
        rows = [objective.measure(dict(zip(names, x.tolist(), strict=True))) for x in points]
        told = np.array([[(a.score, a.n_tokens) for a in row.answers] for row in rows])
        for n in _COUNTS:
            means = told[:, :n].mean(axis=1)
            effects = (means[1:] - means[0]) * (1 - 2 * level)
            ranks = [float(spearmanr(effects[:, j], true[:, j]).statistic) for j in range(2)]
            shown = " | ".join(f"{rank:.2f}" for rank in (*ranks, fmean(ranks)))
            print(f"| {start} | {n} | {shown} |", flush=True)

    print(
        "\n| importance | questions | rank correlation with the size: accuracy | tokens | mean |"
    )
    print("|---|---|---|---|---|")
    for kind in ("parameter", "both"):
        told_of = importance(kind)
        values = [told_of[name] for name in names]
        ranks = [float(spearmanr(values, np.abs(true[:, j])).statistic) for j in range(2)]
        print(f"| {kind} | 0 | {' | '.join(f'{rank:.2f}' for rank in (*ranks, fmean(ranks)))} |")


def importance(kind: str) -> dict[str, float]:
    """Return the importance that a spec with this `importance.kind` gives the demo's layers."""
    content = StudySpec.from_yaml(SPEC).model_dump(mode="json")
    content["importance"]["kind"] = kind
    computed = compute_importance(StudyInputs.of(StudySpec.parse(content, SPEC.parent)))
    assert computed is not None
    return computed


def slopes() -> tuple[Array, list[str]]:
    """Return each weight's mean effect on accuracy and tokens, `d x 2`-dim, and their names."""
    content = np.load(TABLE)
    tokens = content["tokens"].astype(float)
    correct = np.unpackbits(content["correct"], axis=1, count=tokens.shape[1]).astype(float)
    values = np.stack([correct.mean(axis=1), tokens.mean(axis=1)], axis=1)
    X = np.column_stack([np.ones(len(values)), content["weights"].astype(float)])
    plane, *_ = np.linalg.lstsq(X, values, rcond=None)
    return plane[1:], content["names"].tolist()


if __name__ == "__main__":
    main()
