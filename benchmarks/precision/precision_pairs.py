"""The pairs whose weights and precisions are searched."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mergefront.examples.demo import BASE, EXPERT, QUESTIONS
from mergefront.study import StudySpec
from mergefront.study.spec.inputs import StudyInputs

REPOSITORY = Path(__file__).resolve().parents[2]
_SMOLLM2 = REPOSITORY / "examples" / "smollm2"


@dataclass(frozen=True)
class Pair:
    """What is searched, and what it is asked.

    Args:
        choices: Precisions; the first one is what a search without a choice is measured in.
        n_groups: Groups of layers that have a precision each.
        models: Section of the spec.
        questions: Folder of the splits.
        splits: Which of them is searched on, and which measured afresh.
        n_questions: Of a candidate.
        n_fresh: Of a front.
        evaluation: Section of the spec, without its tasks.
        scorer: Of the answers.
    """

    choices: tuple[str, ...]
    n_groups: int
    models: dict[str, Any]
    questions: Path
    splits: tuple[str, str]
    n_questions: int
    n_fresh: int
    evaluation: dict[str, Any]
    scorer: str

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that choose a precision."""
        return tuple(f"precision_{k}" for k in range(self.n_groups))

    @property
    def searched(self) -> dict[str, Any]:
        """Section `merge` of a search over precisions."""
        return {"precision": {"choose": list(self.choices), "groups": self.n_groups}}

    def inputs(
        self,
        folder: Path,
        seed: int,
        trials: int,
        merge: dict[str, Any],
        metrics: Sequence[str],
        n_fresh: int | None = None,
    ) -> StudyInputs:
        """Write the questions of a seed and return the inputs of a study.

        Args:
            folder: For them, and for the study.
            seed: Of the study and of the search's questions; fresh ones are the same for all.
            trials: Of the study.
            merge: Section of the spec.
            metrics: The objectives.
            n_fresh: Defaults to None: the pair's own.
        """
        folder.mkdir(parents=True, exist_ok=True)
        search, fresh = self.splits
        for name, split, n, rng in (
            ("search", search, self.n_questions, np.random.default_rng([abs(seed), 1])),
            ("test", fresh, n_fresh or self.n_fresh, np.random.default_rng(2)),
        ):
            lines = (self.questions / f"{split}.jsonl").read_text().splitlines()
            chosen = rng.permutation(len(lines))[:n]
            (folder / f"{name}.jsonl").write_text("".join(lines[i] + "\n" for i in chosen))
        storage, files = f"sqlite:///{folder}/study.db", ("search", "test")
        spec = {
            "study": {"name": "p", "storage": storage, "trials": trials, "seed": max(seed, 0)},
            "models": self.models,
            "merge": merge,
            "objectives": [{"metric": metric} for metric in metrics],
            "evaluation": {
                **self.evaluation,
                "tasks": [
                    {"name": "t", "scorer": self.scorer, "files": {s: f"{s}.jsonl" for s in files}}
                ],
            },
        }
        return StudyInputs.of(StudySpec.parse(spec, folder))


PAIRS = {
    "demo": Pair(
        choices=("bfloat16", "int8", "int4"),
        n_groups=2,
        models={"base": str(BASE), "experts": [str(EXPERT)], "dtype": "bfloat16"},
        questions=QUESTIONS,
        splits=("search", "test"),
        n_questions=120,
        n_fresh=256,
        evaluation={"max_new_tokens": 64, "batch_size": 128},
        scorer="exact_match",
    ),
    # Computed in float32, for CPUs that are slow in bfloat16; eight bits cost it nothing.
    "smollm2": Pair(
        choices=("int8", "int4"),
        n_groups=3,
        models={
            "base": str(REPOSITORY / "runs" / "smollm2" / "base"),
            "experts": [str(_SMOLLM2 / "adapters" / "talker")],
            "dtype": "float32",
        },
        questions=_SMOLLM2 / "questions",
        splits=("search", "validation"),
        n_questions=60,
        n_fresh=100,
        evaluation={"max_new_tokens": 80, "batch_size": 100},
        scorer="last_number",
    ),
}
