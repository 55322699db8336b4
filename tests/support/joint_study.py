"""A small study over operators and experts, of the demo pair and a third model between them."""

from pathlib import Path
from typing import Any

from mergefront.examples.demo import BASE, EXPERT
from mergefront.study.results.export import merge_weights
from mergefront.study.spec import load_inputs
from small_study import write_spec

OPERATORS: list[Any] = ["linear", {"name": "ties", "density": 0.5}, "slerp"]


def write_joint_spec(folder: Path, n_questions: int = 16, **changes: Any) -> Path:
    """Write a spec that searches over three operators and the subsets of two experts.

    Args:
        folder: Also holds the second expert, whose lower half is the expert's.
        n_questions: In each split.
        changes: Section -> keys to set.
    """
    half = folder / "half"
    if not half.exists():
        alone = folder / "alone"
        alone.mkdir()
        weights: dict[str, Any] = {f"layer_{k:03d}": float(k < 4) for k in range(8)}
        weights |= {"embeddings": 1.0, "head": 0.0}
        merge_weights(load_inputs(write_spec(alone, n_questions)), weights, half)
    changes.setdefault("study", {})
    changes["study"] = {"name": "joint", "trials": 16, **changes["study"]}
    changes["models"] = {"experts": [str(EXPERT), str(half)], "choose": {}, "base": str(BASE)}
    settings = {"embeddings": "merge", "head": "merge", "operator": OPERATORS, "order": "search"}
    changes["merge"] = {**settings, **changes.get("merge", {})}
    return write_spec(folder, n_questions, **changes)
