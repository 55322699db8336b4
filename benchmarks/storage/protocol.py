"""What the worker protocol costs on PostgreSQL, and how busy it keeps the workers.

    make bench-storage

Starts a server of its own. Asks and tells go at full speed from real processes, beside Optuna's
`study.ask` and `tell` in the same run, with random proposals on both sides; they and the server
share the machine's cores. Then the time for which a claim with our sampler holds the lock, and
with these times a simulated clock.
"""

import argparse
from statistics import fmean, quantiles, stdev

import numpy as np
import optuna
import torch
from clock import Use, asynchronous, evaluation_times, synchronous
from load import SIDES, Load, fill, lock_seconds, measure

from postgres import Server, serve

EVALUATION_SECONDS, VARIATION = 300.0, 0.6


def main() -> None:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 8, 32, 64])
    parser.add_argument("--finished", type=int, nargs="*", default=[0, 500, 2000])
    parser.add_argument("--trials", type=int, default=256, help="of all workers together")
    parser.add_argument("--seeds", type=int, default=5, help="of the simulated clock")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with serve() as server:
        filled = {n: _filled(server, n) for n in arguments.finished}
        _print_loads(server, filled, arguments.workers, arguments.trials)
        held = _print_lock(server, filled)
    _print_clock(held, arguments.seeds)


def _filled(server: Server, n: int) -> str:
    url = server.new_database()
    fill(url, n)
    return url


def _copy(server: Server, url: str) -> str:
    """Return a database with the same content, so that no run sees another's trials."""
    copy = server.new_database()
    name = copy.rsplit("/", 1)[1]
    server.execute(f"DROP DATABASE {name}")
    server.execute(f"CREATE DATABASE {name} TEMPLATE {url.rsplit('/', 1)[1]}")
    return copy


def _print_loads(
    server: Server, filled: dict[int, str], workers: list[int], n_trials: int
) -> None:
    print("| finished | workers | | statements a trial | median s | 95 % s | trials a second |")
    print("|---|---|---|---|---|---|---|")
    for n_finished, url in filled.items():
        for n_workers in workers:
            each = max(2, n_trials // n_workers)
            for side in SIDES:
                load = measure(_copy(server, url), side, n_workers, each)
                cells = [str(n_finished), str(n_workers), side, *_cells(load)]
                print("| " + " | ".join(cells) + " |", flush=True)


def _cells(load: Load) -> list[str]:
    twentieths = quantiles(load.seconds, n=20)
    figures = (f"{twentieths[9]:.3f}", f"{twentieths[18]:.3f}", f"{load.per_second:.1f}")
    return [f"{load.statements:.1f}", *figures]


def _print_lock(server: Server, filled: dict[int, str]) -> dict[int, float]:
    print("\n| finished trials | a claim holds the lock, s (63 pending) |\n|---|---|")
    held = {}
    for n_finished, url in filled.items():
        seconds = lock_seconds(_copy(server, url), pending=63, repeats=5)
        held[n_finished] = fmean(seconds)
        error = stdev(seconds) / len(seconds) ** 0.5
        print(f"| {n_finished} | {held[n_finished]:.2f} ± {error:.2f} |", flush=True)
    return held


def _print_clock(held: dict[int, float], n_seeds: int) -> None:
    print(
        f"\nEvaluations of {EVALUATION_SECONDS:.0f} s (log-normal, coefficient of variation "
        f"{VARIATION}), 2000 trials, {n_seeds} seeds:\n"
    )
    print("| workers | | utilisation | with the last evaluations | wait for a candidate, s |")
    print("|---|---|---|---|---|")
    numbers, seconds = zip(*sorted(held.items()), strict=True)
    for n_workers in (16, 64, 128, 256, 512):
        for name, simulate in (("mergefront", asynchronous), ("batches", synchronous)):
            uses = []
            for seed in range(n_seeds):
                rng = np.random.default_rng(seed)
                times = evaluation_times(2000, EVALUATION_SECONDS, VARIATION, rng)
                uses.append(
                    simulate(n_workers, times, lambda n: float(np.interp(n, numbers, seconds)))
                )
            print(f"| {n_workers} | {name} | " + " | ".join(_use_cells(uses)) + " |", flush=True)


def _use_cells(uses: list[Use]) -> list[str]:
    columns = zip(*((u.utilisation, u.overall, u.waiting) for u in uses), strict=True)
    errors = len(uses) ** 0.5
    *shares, waiting = columns
    cells = [f"{100 * fmean(c):.1f} ± {100 * stdev(c) / errors:.1f} %" for c in shares]
    return [*cells, f"{fmean(waiting):.2f}"]


if __name__ == "__main__":
    main()
