"""What a large study costs: seconds and memory of every command, and of a worker's claim.

    make bench-scale              # 5,000 trials of 80 weights on a PostgreSQL of its own

Each command is a process of its own, started as a user starts it; memory is its peak (RSS). CPU
seconds are without the database's. Half of the trials again shows what grows faster than they do.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from mergefront.samplers import uniform_levels
from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import StudyInputs, load_inputs
from mergefront.study.storage.ledger import Ledger
from postgres import Server, serve
from small_study import write_spec

_PARTS = Path(__file__).with_name("scale_parts.py")
N_WEIGHTS = 80
LEVELS = uniform_levels(8)
SPACE = {f"layer_{index:03d}": FloatDistribution(0, 1) for index in range(N_WEIGHTS)}


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="*", default=[2500, 5000])
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| trials | what | s | CPU s | peak MB |\n|---|---|---|---|---|")
    with serve() as server:
        for n in arguments.trials:
            with tempfile.TemporaryDirectory(prefix="scale.") as work:
                os.chdir(work)
                measure(server, Path(work), n)


def measure(server: Server, folder: Path, n: int) -> None:
    """Fill a study and measure everything on it."""
    study = {"storage": server.new_database(), "trials": n + 100}
    path = write_spec(folder, 2, study=study, importance={"kind": "none"})
    inputs = load_inputs(path)
    fill(inputs, n)
    commands = {
        "status": ["status", str(path)],
        "front": ["front", str(path), "--format", "json"],
        "report": ["report", str(path), "--out", str(folder / "report")],
    }
    for name, arguments in commands.items():
        line = [sys.executable, "-m", "mergefront", *arguments]
        _, seconds, of_cpu, memory = _run(line)
        print(f"| {n} | `{name}` | {seconds:.1f} | {of_cpu:.1f} | {memory} |", flush=True)
    for part in ("paint", "claims"):
        line = [sys.executable, str(_PARTS), part, str(path)]
        printed, *_, memory = _run(line)
        for row in printed.splitlines():
            print(f"| {n} | {row} | {memory} |", flush=True)


def _run(line: Sequence[str]) -> tuple[str, float, float, int]:
    """Run a process; return what it printed, its seconds, those of CPU, its peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, line
    seconds = time.perf_counter() - start
    return printed, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def fill(inputs: StudyInputs, n: int) -> None:
    """Add finished trials, a hundred a transaction, with all that a worker writes."""
    study = init_study(inputs, queue=False)
    ledger, rng = Ledger(study), np.random.default_rng(0)
    for first in range(0, n, 100):
        with ledger.engine.begin() as connection:
            for number in range(first, min(first + 100, n)):
                ledger.add(connection, _finished(rng, number))
    ledger.engine.dispose()


def _finished(rng: np.random.Generator, number: int) -> optuna.trial.FrozenTrial:
    level = LEVELS[number] if number < len(LEVELS) else None
    x = rng.uniform(size=N_WEIGHTS) if level is None else np.full(N_WEIGHTS, level)
    phase = ("parent" if number < 2 else "uniform") if level is not None else "search"
    return create_trial(
        values=[
            float(x[:8].mean() + 0.05 * rng.normal()),
            float(20 * x[4:40].mean() + rng.normal()),
        ],
        params=dict(zip(SPACE, x.tolist(), strict=True)),
        distributions=dict(SPACE),
        user_attrs={
            "standard_errors": [0.05, 1.0],
            "phase": phase,
            "label": ["base", "expert"][number] if number < 2 else f"trial {number}",
            "n_questions": 200,
            "generated_tokens": 4000,
            "worker": "host-1-0",
            "host": "host",
            "fingerprint": "0" * 12,
            "finish_reasons": {"stop": 200},
            "merge_seconds": 0.1,
            "evaluate_seconds": 300.0,
        },
    )


if __name__ == "__main__":
    main()
