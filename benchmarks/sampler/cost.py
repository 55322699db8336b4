"""CPU-seconds of one suggestion: 36 dimensions, growing histories, pending points.

    python benchmarks/sampler/cost.py

One thread. Each figure is the mean of five suggestions on an in-memory study, with its standard
error; the history lies on a smooth function with noise.
"""

import argparse
import time
from math import sqrt
from statistics import fmean, stdev

import numpy as np
import optuna
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from mergefront.samplers import SIPSampler

DIM, ERROR = 36, 0.1
NAMES = [f"layer_{index:03d}" for index in range(DIM)]
SPACE = dict.fromkeys(NAMES, FloatDistribution(0.0, 1.0))


def main() -> None:
    """Print both tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _suggest(_study(10, 0, "gp"), 1)  # imports and first-use costs
    print("| trials | mergefront | GPSampler |\n|---|---|---|")
    for n in (50, 200, 500):
        cells = [_suggest(_study(n, 0, name), arguments.repeats) for name in ("sip", "gp")]
        print(f"| {n} | " + " | ".join(cells) + " |", flush=True)
    print("\n| pending points at 50 trials | mergefront |\n|---|---|")
    for pending in (0, 7, 15, 31):
        print(f"| {pending} | {_suggest(_study(50, pending, 'sip'), arguments.repeats)} |")


def _study(n: int, pending: int, sampler: str) -> optuna.Study:
    rng = np.random.default_rng(0)
    study = optuna.create_study(directions=["maximize", "minimize"])
    importance = dict(zip(NAMES, rng.uniform(size=DIM).tolist(), strict=True))
    ours = SIPSampler(importance=importance, seed=0, search_space=SPACE)
    study.sampler = ours if sampler == "sip" else optuna.samplers.GPSampler(seed=0)
    for _ in range(n):
        x = rng.uniform(size=DIM) * 0.6 + rng.uniform() * 0.4
        values = [float(x[:6].mean() - (x[:6] ** 2).mean() / 2), float(x[4:12].mean())]
        noisy = [value + ERROR * rng.normal() for value in values]
        study.add_trial(_trial(x, TrialState.COMPLETE, noisy))
    for _ in range(pending):
        study.add_trial(_trial(rng.uniform(size=DIM), TrialState.RUNNING, None))
    return study


def _trial(
    x: np.ndarray, state: TrialState, values: list[float] | None
) -> optuna.trial.FrozenTrial:
    return create_trial(
        state=state,
        values=values,
        params=dict(zip(NAMES, x.tolist(), strict=True)),
        distributions=dict(SPACE),
        user_attrs={"standard_errors": [ERROR, ERROR]},
    )


def _suggest(study: optuna.Study, repeats: int) -> str:
    seconds = []
    for _ in range(repeats):
        trial = study.ask()
        start = time.process_time()
        trial.suggest_float(NAMES[0], 0.0, 1.0)
        seconds.append(time.process_time() - start)
        study.tell(trial, state=TrialState.FAIL)
    error = stdev(seconds) / sqrt(repeats) if repeats > 1 else float("nan")
    return f"{fmean(seconds):.2f} ± {error:.2f}"


if __name__ == "__main__":
    main()
