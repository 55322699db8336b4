"""What a study of the demo pair's knows for the next one, which asks other questions.

    PYTHONPATH=benchmarks/evaluation python benchmarks/transfer/warm_demo.py
    PYTHONPATH=benchmarks/evaluation python benchmarks/transfer/warm_demo.py --seed 1
    PYTHONPATH=benchmarks/evaluation python benchmarks/transfer/warm_demo.py --layers 12

For every seed the demo study (60 candidates on the 320 questions of `search`) is the source of a
study with another seed on 320 questions of `validation`. After some of its evaluations its front
is measured on the 640 questions of `test`, with the source and without; hypervolumes share one
reference point, and differences are paired by seed. `--seed` and `--layers` train another pair,
which is the one that is searched. Rows that are finished are kept and not measured again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import front as fronts
import numpy as np
import optuna
import torch
from racing import REFERENCE, _mean

from mergefront.examples.demo.train import Schedule, train_pair
from mergefront.objectives import Measurement, MergeObjective
from mergefront.study import StudySpec
from mergefront.study.results.front import front_report
from mergefront.study.run import make_objective, run
from mergefront.study.spec.inputs import StudyInputs
from mergefront.study.storage.connection import load_study

LOOKS = (16, 24, 36, 60)
_QUESTIONS = 320
_OTHER_SEED = 100


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/front"))
    parser.add_argument("--rows", type=Path, default=Path("runs/transfer/demo"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--seed", type=int, default=Schedule.seed, help="of the pair searched")
    parser.add_argument(
        "--layers", type=int, default=Schedule.n_layers, help="of the pair searched"
    )
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    torch.set_num_threads(1)
    bench = _Bench(arguments.out, Schedule(seed=arguments.seed, n_layers=arguments.layers))
    folder = arguments.rows / f"pair-{arguments.seed}-{arguments.layers}"
    folder.mkdir(parents=True, exist_ok=True)
    _print([_load_or_run(bench, folder / f"{seed}.json", seed) for seed in arguments.seeds])


def _load_or_run(bench: "_Bench", path: Path, seed: int) -> list[list[float]]:
    if not path.exists():
        content = json.dumps(bench.volumes(seed))
        part = path.with_suffix(".part")
        part.write_text(content)
        part.rename(path)
    row: list[list[float]] = json.loads(path.read_text())
    return row


def _print(rows: Sequence[list[list[float]]]) -> None:
    without, knows = zip(*rows, strict=True)
    print(f"| earlier study | {' | '.join(f'{n} evaluations' for n in LOOKS)} |")
    print(f"|---{'|---' * len(LOOKS)}|")
    for name, volumes in (("none", without), ("search's questions", knows)):
        print(f"| {name} | {' | '.join(map(_mean, zip(*volumes, strict=True)))} |")
    changes = [[b - a for a, b in zip(*row, strict=True)] for row in rows]
    print(f"| difference | {' | '.join(map(_mean, zip(*changes, strict=True)))} |")
    for place, n in enumerate(LOOKS[:-1]):
        less = [b[place] - a[-1] for a, b in rows]
        print(f"With the source after {n}, less without after {LOOKS[-1]}: {_mean(less)}")


@dataclass
class _Bench:
    """All searches of a pair.

    Args:
        out: Folder of studies, pairs and answers.
        schedule: Of the training of the pair searched.
    """

    out: Path
    schedule: Schedule
    _fresh: dict[str, Measurement] = field(default_factory=dict)

    def volumes(self, seed: int) -> list[list[float]]:
        """Return fresh hypervolumes after some of the evaluations, without a source and with."""
        run(StudyInputs.of(fronts.study_spec(self.out, f"seed-{seed}", 60, seed)))
        return [
            [self._volume(_spec(self.out, self.pair, seed, knows, n)) for n in LOOKS]
            for knows in (False, True)
        ]

    def _volume(self, spec: StudySpec) -> float:
        """Search as far as the spec says, and measure the front on fresh questions."""
        run(StudyInputs.of(spec))
        report = front_report(load_study(spec), spec)
        front = fronts.Front(report, [self._measured(trial.params) for trial in report.trials])
        volumes = fronts.volumes_of(front, self.objective, self.reference, report.directions)
        return float(volumes[0])

    def _measured(self, params: dict[str, Any]) -> Measurement:
        """Measure a merge once: many are on the front more than once."""
        key = json.dumps(params, sort_keys=True)
        if key not in self._fresh:
            self._fresh[key] = self.objective.measure(params)
        return self._fresh[key]

    @cached_property
    def pair(self) -> Path | None:
        """Folder of the pair, trained if it is not there yet; None for the demo pair itself."""
        self.out.mkdir(parents=True, exist_ok=True)
        text = (fronts.SPEC.parent / "demo/questions/validation.jsonl").read_text()
        lines = text.splitlines(keepends=True)[:_QUESTIONS]
        (self.out / "other.jsonl").write_text("".join(lines))
        if self.schedule == Schedule():
            return None
        folder = self.out / f"pair-{self.schedule.seed}-{self.schedule.n_layers}"
        if not (folder / "questions").exists():
            train_pair(folder, self.schedule)
        return folder.resolve()

    @cached_property
    def objective(self) -> MergeObjective:
        """Asks the questions of `test`."""
        return make_objective(StudyInputs.of(_spec(self.out, self.pair, 0, False, 60)), "test")

    @cached_property
    def reference(self) -> list[float]:
        """The reference point of all hypervolumes."""
        return list(REFERENCE) if self.pair is None else _reference(self.objective)


def _reference(objective: MergeObjective) -> list[float]:
    """Return what lies a tenth of the parents' range beyond the worse one, on fresh questions."""
    parents = [objective.measure(objective.plan.uniform(level)).values for level in (0.0, 1.0)]
    (low, few), (high, many) = np.sort(np.array(parents), axis=0)
    return [float(low - 0.1 * (high - low)), float(many + 0.1 * (many - few))]


def _spec(out: Path, pair: Path | None, seed: int, knows: bool, n: int) -> StudySpec:
    name = f"{'warm' if knows else 'cold'}-{seed}{'' if pair is None else '-' + pair.name}"
    content = fronts.study_spec(out, name, n, seed + _OTHER_SEED).model_dump(mode="json")
    files = content["evaluation"]["tasks"][0]["files"]
    files["search"] = str((out / "other.jsonl").resolve())
    del files["validation"]  # its questions are these
    if pair is not None:
        content["models"] |= {"base": str(pair / "base"), "experts": [str(pair / "expert")]}
    if knows:
        source = fronts.study_spec(out, f"seed-{seed}", 60, seed).study
        content["sampler"]["warm_start"] = [f"{source.storage}#{source.name}"]
    return StudySpec.parse(content, fronts.SPEC.parent)


if __name__ == "__main__":
    main()
