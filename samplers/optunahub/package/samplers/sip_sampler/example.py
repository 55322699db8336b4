"""Twelve layers, two noisy objectives: print the denoised values of the front."""

import random

import optuna
import optunahub

from mergefront.samplers import denoise

ERROR = 0.05


def objective(trial: optuna.Trial) -> tuple[float, float]:
    """Score a profile of weights; layers 2 and 9 decide most of it."""
    x = [trial.suggest_float(f"layer_{i:03d}", 0.0, 1.0) for i in range(12)]
    trial.set_user_attr("standard_errors", [ERROR, ERROR])
    accuracy = 0.7 * x[2] + 0.3 * sum(x) / 12
    cost = 0.7 * x[9] ** 2 + 0.3 * sum(x) / 12
    return accuracy + random.gauss(0, ERROR), cost + random.gauss(0, ERROR)


if __name__ == "__main__":
    module = optunahub.load_module("samplers/sip_sampler")
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=module.SIPSampler(seed=0)
    )
    study.optimize(objective, n_trials=24)
    denoised = denoise(study)
    for trial, means in zip(denoised.trials, denoised.means.tolist(), strict=True):
        if trial in study.best_trials:
            print(trial.number, means)
