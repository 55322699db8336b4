"""What a study must be after everything."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from herd import Herd
from optuna.trial import FrozenTrial, TrialState

from mergefront.study.spec.study_spec import StudySpec
from mergefront.study.storage.connection import load_study
from mergefront.study.storage.outages import through_outages

_REASONS = re.compile(
    r"its worker died( \d+ times)?|the worker was asked to stop|its worker's disk.*"
)


@dataclass(frozen=True)
class Loss:
    """What was done to a study, and what it lost.

    Args:
        budget: Trials asked for.
        seconds: It took.
        events: What happened how often.
        counts: Of trials by state, and of what became of results.
        lost: What must not be: measured results that are nowhere, values that nobody measured,
            chimeras, trials left running, candidates that count twice, other failures.
    """

    budget: int
    seconds: float
    events: Counter[str]
    counts: Counter[str]
    lost: Counter[str]

    @property
    def bad(self) -> bool:
        """Whether anything was lost, or the budget missed."""
        return bool(+self.lost) or self.counts["COMPLETE"] != self.budget

    def __str__(self) -> str:
        lost = ", ".join(f"{n} {name}" for name, n in (+self.lost).items()) or "nothing"
        done = ", ".join(f"{n} {name}" for name, n in self.counts.items())
        return f"{self.seconds:.0f} s, {sum(self.events.values())} events; {done}; lost: {lost}"

    @staticmethod
    def table(losses: Sequence["Loss"], seconds: float) -> str:
        """Return all of it as Markdown."""
        events, counts, lost = Counter[str](), Counter[str](), Counter[str]()
        for loss in losses:
            events, counts, lost = events + loss.events, counts + loss.counts, lost + loss.lost
        budget = sum(loss.budget for loss in losses)
        rows = [f"| {name} | {n} |" for name, n in sorted(events.items())]
        rows += [f"| {name} | {n} |" for name, n in sorted(counts.items())]
        rows += [f"| trials asked for | {budget} |"]
        rows += [f"| **lost**: {name} | {n} |" for name, n in lost.items()] or ["| **lost** | 0 |"]
        title = f"| {len(losses)} studies in {seconds / 60:.0f} minutes | |"
        return "\n".join([title, "|---|---|", *rows])


def check(spec: StudySpec, herd: Herd, seconds: float) -> Loss:
    """Compare what was measured with what the database has."""
    trials = through_outages(lambda: load_study(spec).get_trials(deepcopy=False))
    measured = [json.loads(line) for line in herd.log.read_text().splitlines()]
    stored = {_key(_number(t), t.user_attrs["worker"], t.values): t for t in _complete(trials)}
    aside = {_key(r["number"], r["worker"], r["values"]) for r in _kept(herd.folder)}
    known = {_key(r["number"], r["worker"], r["values"]) for r in measured}
    counts = Counter(trial.state.name for trial in trials)
    counts["results adopted late"] = sum("measured_as" in t.user_attrs for t in trials)
    counts["second measurements kept aside"] = len(aside)
    points = Counter(tuple(sorted(t.params.items())) for t in _complete(trials))
    lost = Counter(
        {
            "results that are nowhere": len(known - stored.keys() - aside),
            "values that nobody measured": len(stored.keys() - known),
            "candidates that count twice": sum(n - 1 for n in points.values()),
            "chimeras": sum(_is_chimera(trial, trials) for trial in trials),
            "trials left running": counts["RUNNING"],
            "failures for another reason": sum(map(_is_other_failure, trials)),
            "undelivered results": len(list(_undelivered(herd.folder))),
        }
    )
    return Loss(spec.study.trials, seconds, herd.events, counts, +lost)


def _key(number: int, worker: str, values: Sequence[float] | None) -> tuple[Any, ...]:
    return (number, worker, *(values or ()))


def _number(trial: FrozenTrial) -> int:
    return int(trial.user_attrs.get("measured_as", trial.number))


def _complete(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def _kept(folder: Path) -> Iterator[dict[str, Any]]:
    for path in folder.rglob("spool/superseded/*.json"):
        yield json.loads(path.read_text())


def _undelivered(folder: Path) -> Iterator[Path]:
    yield from folder.rglob("spool/trial-*.json")
    yield from folder.rglob("spool/put-aside/*.json")


def _is_chimera(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    first = trial.system_attrs.get("failed_trial")
    return first is not None and trial.params != trials[first].params


def _is_other_failure(trial: FrozenTrial) -> bool:
    reason = trial.user_attrs.get("failure", "none")
    return trial.state == TrialState.FAIL and _REASONS.fullmatch(reason) is None
