"""Penalties: numbers that stand for what could not be measured."""

import math
import sys
from typing import Any

import optuna
import pytest
import torch

import mergefront
from mergefront.samplers import AcquisitionBudget, SIPSampler, denoise, recommend
from mergefront.samplers._acqf import infer_reference_point

SMALL = AcquisitionBudget(n_samples=8, n_raw=24, n_restarts=2, n_steps=5)


def _study(
    m: int, penalty: float, acquisition: Any, reference: tuple[float, ...] | None = None
) -> optuna.Study:
    """Return a study to be minimized, every third trial of which got the penalty."""
    sampler = SIPSampler(
        seed=0,
        n_startup_trials=3,
        budget=SMALL,
        acquisition=acquisition,
        reference_point=reference,
    )
    study = optuna.create_study(directions=["minimize"] * m, sampler=sampler)

    def objective(trial: optuna.Trial) -> list[float]:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return [penalty] * m if trial.number % 3 == 2 else [x + y, 1 - x + y][:m]

    study.optimize(objective, n_trials=8)
    return study


@pytest.mark.parametrize("acquisition", ["knowledge-gradient", "qlognehvi"])
@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize("penalty", [1.1e155, sys.float_info.max])
def test_a_penalty_beyond_reckoning_is_as_an_infinite_one(
    m: int, penalty: float, acquisition: str
) -> None:
    study, skipped = (_study(m, value, acquisition) for value in (penalty, math.inf))
    assert [t.params for t in study.trials] == [t.params for t in skipped.trials]
    kept = [trial.number for trial in study.trials if trial.number % 3 != 2]
    assert [trial.number for trial in denoise(study).trials] == kept
    assert [r.values for r in recommend(study)] == [r.values for r in recommend(skipped)]
    report = mergefront.front(study)
    assert report.hypervolume == mergefront.front(skipped).hypervolume
    assert report.trials


def test_a_constraint_broken_beyond_reckoning_is_broken() -> None:
    study = optuna.create_study()
    for index in range(8):
        trial = study.ask()
        x = trial.suggest_float("x", index / 8, index / 8 + 1e-9)
        trial.set_constraint("size", sys.float_info.max if index > 4 else x - 1.0)
        study.tell(trial, x)
    feasible = denoise(study).feasible.tolist()
    assert (feasible[0], feasible[-1]) == (True, False)


def test_beliefs_that_are_no_numbers_end() -> None:
    Y = torch.tensor([[2.0, 2.0], [torch.nan, torch.nan], [1.0, torch.nan]])
    assert infer_reference_point(Y).shape == (2,)


@pytest.mark.parametrize("penalty", [1e11, 1e12, 1e20, 1e30, 1e99])
@pytest.mark.parametrize("reference", [None, (2.0, 2.0)])
def test_the_improvement_beside_a_large_penalty_is_a_number(
    penalty: float, reference: tuple[float, float] | None
) -> None:
    study = _study(2, penalty, "qlognehvi", reference)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 8
