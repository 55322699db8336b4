"""What it costs that proposals of a long study look at some of its trials.

    python benchmarks/sampler/long_proposals.py

Histories of `long_studies.py` go on for some proposals, chosen by what all trials tell and by what
as many tell as the product looks at. Regrets as in `long_studies.py`, paired by problem.
"""

import argparse
from statistics import fmean, stdev
from unittest.mock import patch

import numpy as np
import optuna
import torch
from long_studies import scores, searched
from optuna.distributions import BaseDistribution, FloatDistribution
from problems import Problem, make_problem

from mergefront.samplers import SIPSampler, sip_sampler

ALL = 10**9


def main() -> None:
    """Print regrets, and their differences."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1900)
    parser.add_argument("--proposals", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    for seed in range(arguments.seeds):
        problem = make_problem(f"plain/independent/{500 + seed}")
        sides = (ALL, sip_sampler._MOST_LOOKED_AT)
        rows.append([_regrets(problem, seed, arguments, most) for most in sides])
        print(seed, rows[-1], flush=True)
    whole, some = np.array(rows).transpose(1, 2, 0)
    for name, a, b in zip(("selection regret", "hypervolume regret"), whole, some, strict=True):
        more = (b - a).tolist()
        error = stdev(more) / len(more) ** 0.5
        print(f"{name}: all {fmean(a):.4f}, some {fmean(b):.4f}, {fmean(more):+.4f} ± {error:.4f}")


def _regrets(
    problem: Problem, seed: int, arguments: argparse.Namespace, most: int
) -> tuple[float, float]:
    """Return selection and hypervolume regret after the proposals."""
    study = searched(problem, arguments.trials, seed)
    space: dict[str, BaseDistribution] = dict.fromkeys(problem.names, FloatDistribution(0.0, 1.0))
    importance = problem.named_importance()
    study.sampler = SIPSampler(seed=seed, search_space=space, importance=importance)
    rng = np.random.default_rng(seed)
    with patch.object(sip_sampler, "_MOST_LOOKED_AT", most):
        for _ in range(arguments.proposals):
            trial = study.ask(space)
            told = problem.measure(np.array([trial.params[name] for name in space]), rng)
            trial.set_user_attr("standard_errors", told.errors.tolist())
            study.tell(trial, told.values.tolist())
    *_, selection, volume = scores(problem, study, ALL)
    return selection, volume


if __name__ == "__main__":
    main()
