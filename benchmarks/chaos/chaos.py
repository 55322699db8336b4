"""What is lost when workers, database, disks and clocks fail all the time: nothing.

    make chaos                                   # one study of 500 trials
    make chaos MINUTES=120                       # studies of 500 trials until the time is over

Eight real workers (the measurement alone is made light, one to two seconds) share one study on a
PostgreSQL of their own. The database is stopped every 5 to 40 s for up to 5 s, by a crash or in
good order; a worker is killed every 20 s, its successor too every tenth time; one is stopped
(SIGSTOP) for longer than the grace; one has a full disk; one has a clock that is an hour ahead.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import optuna
from checks import Loss, check
from herd import Herd

from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import load_inputs
from postgres import Server, serve
from small_study import write_spec

GRACE_SECONDS, HEARTBEAT_SECONDS = 6.0, 0.5
N_WORKERS = 8
DEADLINE_SECONDS = 1800.0


@dataclass(frozen=True)
class Weather:
    """How often what happens, in seconds."""

    outage_every: tuple[float, float] = (5.0, 40.0)
    outage_longest: float = 5.0
    kill_every: float = 20.0
    kill_successor_every: int = 10
    stop_every: float = 60.0
    full_disk_for: float = 15.0


def main() -> None:
    """Run studies until the time is over, and print what was done and lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--workers", type=int, default=N_WORKERS)
    parser.add_argument("--minutes", type=float, default=0.0, help="go on with more studies")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("mergefront").setLevel(logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    start, seed = time.monotonic(), arguments.seed
    losses: list[Loss] = []
    while not losses or time.monotonic() - start < 60 * arguments.minutes:
        with serve() as server, tempfile.TemporaryDirectory(prefix="chaos.") as work:
            losses.append(one_study(server, Path(work), arguments.trials, seed, arguments.workers))
        print(losses[-1], flush=True)
        seed += 1
    print(Loss.table(losses, time.monotonic() - start))
    sys.exit(any(loss.bad for loss in losses))


def one_study(
    server: Server,
    folder: Path,
    trials: int,
    seed: int,
    n_workers: int,
) -> Loss:
    """Run one study through everything; return what was done to it and what it lost."""
    study = {
        "storage": server.new_database(),
        "trials": trials,
        "seed": seed,
        "heartbeat_seconds": HEARTBEAT_SECONDS,
        "grace_seconds": GRACE_SECONDS,
    }
    path = write_spec(folder, 2, study=study, sampler={"preset": "random"})
    inputs = load_inputs(path)
    init_study(inputs)
    start = time.monotonic()
    with Herd(path, folder, server, random.Random(seed), Weather()) as herd:
        herd.start(n_workers)
        while not herd.done():
            if time.monotonic() - start > DEADLINE_SECONDS:
                raise TimeoutError(f"{trials} trials took more than {DEADLINE_SECONDS:g} s")
            herd.tick()
            time.sleep(0.1)
        seconds = time.monotonic() - start
        herd.finish()
        return check(inputs.spec, herd, seconds)


if __name__ == "__main__":
    main()
