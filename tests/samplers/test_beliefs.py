"""Long studies: beliefs conditioned on some of the trials, and still honest."""

from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from mergefront.samplers import _beliefs, denoise, fit_study
from mergefront.samplers.denoise import StudyModel
from mergefront.study import pareto_front, recommend

NAMES = [f"layer_{i:03d}" for i in range(6)]
SPACE: dict[str, Any] = dict.fromkeys(NAMES, FloatDistribution(0.0, 1.0))
ERROR, N, BOUND = 0.1, 240, 80


def _truth(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.array([1 - ((x - 0.8) ** 2).mean(), 1 - ((x - 0.2) ** 2).mean()])


def _searched(seed: int, constrained: bool = False) -> optuna.Study:
    """Return a study whose trials gather around what was measured best: around the lucky ones."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(directions=["maximize", "maximize"])
    points: list[np.ndarray[Any, Any]] = []
    values: list[np.ndarray[Any, Any]] = []
    for number in range(N):
        x = rng.random(6)
        if number > 30:
            best = np.argsort(np.array(values) @ rng.dirichlet([1, 1]))[-10:]
            x = (points[rng.choice(best)] + 0.1 * rng.normal(size=6)).clip(0, 1)
        points.append(x)
        values.append(_truth(x) + ERROR * rng.normal(size=2))
        told: dict[str, Any] = {"standard_errors": [ERROR, ERROR]}
        limit = {"limit": float(x[0] - 0.5)} if constrained else None
        trial = create_trial(
            values=values[-1].tolist(),
            params=dict(zip(NAMES, x.tolist(), strict=True)),
            distributions=SPACE,
            user_attrs=told,
            constraints=limit,
        )
        study.add_trial(trial)
    return study


def _model(study: optuna.Study) -> StudyModel:
    model = fit_study(study)
    assert model is not None
    return model


def test_studies_up_to_the_bound_are_conditioned_on_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    study = _searched(0)
    monkeypatch.setattr(_beliefs, "MOST_POINTS", N)
    whole = denoise(study)
    monkeypatch.setattr(_beliefs, "MOST_POINTS", 10**9)
    unbounded = denoise(study)
    assert torch.equal(whole.means, unbounded.means)
    assert torch.equal(whole.deviations, unbounded.deviations)


def test_beyond_the_bound_some_trials_are_known_and_all_are_believed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_beliefs, "MOST_POINTS", BOUND)
    study = _searched(0)
    model = _model(study)
    for fit in model.surrogate.fits:
        assert BOUND // 2 < len(fit.process.X) <= BOUND
        assert len(fit.measured.X) == N
    denoised = denoise(study)
    assert len(denoised.trials) == len(denoised.means) == len(denoised.deviations) == N
    assert pareto_front(study)
    assert len(recommend(study)) == 19


def test_deviations_are_right_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standardized errors have variance 1 where deviations are right, whatever is conditioned on.

    Those of one study go together: their spread over studies is what the mean is judged by.
    """
    monkeypatch.setattr(_beliefs, "MOST_POINTS", BOUND)
    squares, everywhere, wider = [], [], []
    for seed in range(12):
        study = _searched(seed)
        bounded = denoise(study)
        truth = torch.from_numpy(np.array([_truth(_point(t)) for t in bounded.trials]))
        z = (truth - bounded.means) / bounded.deviations
        members = [trial.number for trial in pareto_front(study)]
        squares.append(float(z[members].square().mean()))
        everywhere.append(float(z.square().mean()))
        with monkeypatch.context() as unbounded:
            unbounded.setattr(_beliefs, "MOST_POINTS", N)
            wider.append(float((bounded.deviations / denoise(study).deviations).median()))
    error = np.std(squares, ddof=1) / len(squares) ** 0.5
    assert np.mean(squares) < 1.0 + 3 * error
    assert np.mean(squares) < 1.7
    assert 0.4 < np.mean(everywhere) < 1.5
    # A third of the trials tell less than all: by sqrt(3) at most, which is 1.7.
    assert 1.0 < np.mean(wider) < 1.75


def _point(trial: optuna.trial.FrozenTrial) -> np.ndarray[Any, Any]:
    return np.array([trial.params[name] for name in NAMES])


def test_constraints_are_still_known_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_beliefs, "MOST_POINTS", BOUND)
    study = _searched(1, constrained=True)
    for a in np.linspace(0.6, 1.0, 40):
        params = dict.fromkeys(NAMES, 0.5) | {NAMES[0]: float(a)}
        screened = create_trial(
            state=TrialState.PRUNED,
            params=params,
            distributions=SPACE,
            constraints={"limit": float(a - 0.5)},
        )
        study.add_trial(screened)
    model = _model(study)
    (margin,) = model.feasibility.margins
    n_screened = int((model.feasibility.rows[0] >= N).sum())
    assert n_screened == 40
    assert len(margin.fits[0].process.X) <= 2 * BOUND
    # Known to its rounding: without noise in the constraint, nothing is taken for its opposite.
    broken = torch.tensor([trial.params[NAMES[0]] > 0.52 for trial in model.trials])
    kept = torch.tensor([trial.params[NAMES[0]] < 0.48 for trial in model.trials])
    assert not bool((model.kept[broken] >= 0.5).any())
    assert bool((model.kept[kept] >= 0.5).all())
    assert all(trial.params[NAMES[0]] < 0.53 for trial in pareto_front(study))
