"""Evaluate many layer-wise merges of the demo pair once, for `problems/tabulated.py`.

    python benchmarks/sampler/evaluate_merges.py --candidates 780 --out runs/table

A third of the candidates are independent uniform weights, a third smooth profiles over the
layers, a third weights near 0 and 1. Every candidate answers the 480 questions of the splits
`importance` and `search`, greedily. Interrupted runs go on where they stopped; the table is
written when all candidates are there.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.objectives import MergeObjective, questions_of
from mergefront.objectives.evaluation import (
    METRICS,
    SPLITS,
    Models,
    Sampling,
    TaskSource,
    load_task,
)
from mergefront.objectives.evaluation.backends.transformers_backend import TransformersBackend
from mergefront.objectives.merging import MergeSettings

TABLE = Path(__file__).parent / "problems" / "demo_merges.npz"


def main() -> None:
    """Evaluate what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=780)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    objective = _objective()
    names = objective.plan.parameter_names
    for index in range(arguments.candidates):
        path = arguments.out / f"{index:05d}.npz"
        if not path.exists():
            _evaluate(objective, dict(zip(names, design(index, len(names)), strict=True)), path)
    _collect(arguments.out, arguments.candidates, names)


def design(index: int, dim: int) -> list[float]:
    """Return the weights of one candidate, a function of its index alone."""
    rng = np.random.default_rng([2, index])
    if index % 3 == 0:
        weights = rng.uniform(size=dim)
    elif index % 3 == 1:
        weights = _smooth_profile(rng, dim)
    else:
        weights = rng.beta(0.4, 0.4, size=dim)
    return [round(float(weight), 4) for weight in weights]


def _smooth_profile(rng: np.random.Generator, dim: int) -> NDArray[np.float64]:
    places = np.arange(dim)
    width = rng.uniform(1.0, dim)
    covariance = np.exp(-0.5 * ((places[:, None] - places) / width) ** 2) + 1e-9 * np.eye(dim)
    wave = np.linalg.cholesky(covariance) @ rng.normal(size=dim)
    profile: NDArray[np.float64] = np.clip(rng.uniform() + 0.35 * wave, 0.0, 1.0)
    return profile


def _objective() -> MergeObjective:
    settings = MergeSettings(granularity="layer", embeddings="search", head="search")
    backend = TransformersBackend(batch_size=480)
    backend.load(Models(BASE, (EXPERT,), "float32", settings))
    files = {name: QUESTIONS / f"{name}.jsonl" for name in SPLITS}
    task = load_task(TaskSource("demo", files))
    questions = questions_of([task], "importance") + questions_of([task], "search")
    metrics = [METRICS["accuracy"], METRICS["tokens"]]
    return MergeObjective(backend, backend.plan, questions, metrics, Sampling(64))


def _evaluate(objective: MergeObjective, params: dict[str, float], path: Path) -> None:
    answers = objective.measure(params).answers
    np.savez(
        path,
        weights=np.array(list(params.values()), dtype=np.float32),
        correct=np.array([answer.score == 1 for answer in answers]),
        tokens=np.array([answer.n_tokens for answer in answers], dtype=np.uint8),
    )


def _collect(folder: Path, n: int, names: list[str]) -> None:
    rows = [np.load(folder / f"{index:05d}.npz") for index in range(n)]
    np.savez_compressed(
        TABLE,
        names=np.array(names),
        weights=np.stack([row["weights"] for row in rows]),
        correct=np.packbits(np.stack([row["correct"] for row in rows]), axis=1),
        tokens=np.stack([row["tokens"] for row in rows]),
    )


if __name__ == "__main__":
    main()
