"""A worker as `mergefront worker` starts it, with an objective that takes a second or two.

    python light_worker.py LOG worker SPEC ...

Everything is the real worker's but the measurement: no model is loaded, the candidate's values
follow from its weights and its worker's name, and every result is noted in LOG at the moment when
it is safe on disk. Two values of one candidate that are equal come from one measurement.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

from mergefront.objectives import Measurement
from mergefront.objectives.evaluation import Answer
from mergefront.study import run
from mergefront.study.cli import app
from mergefront.study.spec.inputs import StudyInputs
from mergefront.study.workers.spool import Result, Spool

LOG = Path(sys.argv.pop(1))


class LightObjective:
    """Stands for a `MergeObjective`: sleeps, and gives values that nobody else gives."""

    _asked = SimpleNamespace(id="light/1", prompt="9?", answer="9")
    questions = (SimpleNamespace(task="light", question=_asked),)
    texts = ()
    n_answers = 1

    def measure(
        self,
        weights: Mapping[str, float],
        answered: Callable[[int], None],
        race: object = None,
        screen: bool = False,
    ) -> Measurement:
        """Return a trade-off of two values, moved by a little that is this call's own."""
        moment = time.monotonic_ns()
        digest = hashlib.sha256(f"{sorted(weights.items())} {LOG} {moment}".encode()).digest()
        own = int.from_bytes(digest[:6], "big") / 2**48
        time.sleep(1.0 + own)
        mean = sum(weights.values()) / len(weights)
        answers = (Answer("light/1", "light", 1.0, 2, "stop", "9"),)
        values = (mean + 1e-6 * own, mean**2 + 1e-6 * own)
        return Measurement(values, (0.01, 0.01), answers, 0.0, 1.0 + own)


def _noted(write: Callable[[Spool, Result], Path]) -> Callable[[Spool, Result], Path]:
    def write_and_note(spool: Spool, result: Result) -> Path:
        path = write(spool, result)
        row = {"number": result.number, "worker": result.worker, "values": result.values}
        with LOG.open("a") as file:
            file.write(json.dumps(row) + "\n")
        return path

    return write_and_note


def _light(inputs: StudyInputs, split: str = "search", devices: Sequence[int] = ()) -> object:
    return LightObjective()


if __name__ == "__main__":
    run.make_objective = _light  # type: ignore[assignment]
    Spool.write = _noted(Spool.write)  # type: ignore[method-assign,assignment]
    app()
