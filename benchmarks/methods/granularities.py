"""What should have a weight of its own? Granularities on the demo pair, at an equal budget.

    make bench-granularities

Every search has as many evaluations, few on purpose: few variables pay there if anywhere. It asks
the first half of the demo's search questions; fronts are measured on the first half of the split
`validation`. Hypervolumes share one reference point; differences are paired by seed.
"""

import argparse
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import optuna
import torch

from mergefront.study import StudySpec
from mergefront.study.comparison.compare import search
from mergefront.study.comparison.scores import Scores, score
from mergefront.study.comparison.variants import Variant

REPOSITORY = Path(__file__).parents[2]
SPEC = REPOSITORY / "examples" / "demo.yaml"
GRANULARITIES = ("layer", "blocks", "learned-blocks", "heads")
N_BLOCKS = 4


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/granularities"))
    parser.add_argument("--seeds", type=int, nargs="+", default=range(10))
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--granularities", nargs="+", default=GRANULARITIES)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    spec = _spec(arguments.out, arguments.trials)
    tasks = [(name, seed) for seed in arguments.seeds for name in arguments.granularities]
    found = [search(spec, _variant(name), seed, "validation", None) for name, seed in tasks]
    scores = dict(zip(tasks, score(found), strict=True))
    _print(scores, arguments.granularities, arguments.seeds)


def _spec(out: Path, trials: int) -> StudySpec:
    out.mkdir(parents=True, exist_ok=True)
    spec = StudySpec.from_yaml(SPEC)
    content = spec.model_dump(mode="json")
    storage = f"sqlite:///{out.resolve()}/study.db"
    content["study"] |= {"name": "granularities", "storage": storage, "trials": trials}
    content["merge"]["n_blocks"] = N_BLOCKS
    files = content["evaluation"]["tasks"][0]["files"]
    for split in ("search", "validation"):
        lines = (SPEC.parent / files[split]).read_text().splitlines(keepends=True)
        files[split] = str(out.resolve() / f"{split}.jsonl")
        Path(files[split]).write_text("".join(lines[: len(lines) // 2]))
    return StudySpec.parse(content, SPEC.parent)


def _variant(granularity: str) -> Variant:
    return Variant(granularity, "mergefront", {"merge": {"granularity": granularity}})


def _print(
    scores: dict[tuple[str, int], Scores], granularities: Sequence[str], seeds: Sequence[int]
) -> None:
    head = f"less `{granularities[0]}`, fresh"
    print(f"| granularity | searched questions | fresh questions | {head} |")
    print("|---|---|---|---|")
    first = [scores[granularities[0], seed].validated_hypervolume for seed in seeds]
    for name in granularities:
        rows = [scores[name, seed] for seed in seeds]
        fresh = [row.validated_hypervolume for row in rows]
        less = [own - other for own, other in zip(fresh, first, strict=True)]
        cells = [_mean([row.hypervolume for row in rows]), _mean(fresh)]
        cells.append(_mean(less, "+.3f") if name != granularities[0] else "")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _mean(values: Sequence[float], form: str = ".3f") -> str:
    return f"{fmean(values):{form}} ± {stdev(values) / sqrt(len(values)):.3f}"


if __name__ == "__main__":
    main()
