"""The interval of a front's hypervolume holds the true one, and is seen while a study runs."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import torch

import mergefront
from mergefront.samplers import Adviser, fit_study
from mergefront.study.cli.progress import _Believed, facts
from mergefront.study.results.front import plain_report
from mergefront.study.results.indicators import hypervolume, hypervolume_interval
from mergefront.study.results.status import status_of
from mergefront.study.results.uniform_curve import joint_draws
from small_study import write_spec

_NAMES = [f"layer_{i:03d}" for i in range(4)]
_ERRORS = (0.025, 0.8)
_REFERENCE = [0.5, 30.0]


def _truth(x: Sequence[float]) -> tuple[float, float]:
    mean = float(np.mean(x))
    uneven = float(np.var(x))
    return 0.95 - 0.35 * math.exp(-3 * mean) - 0.25 * uneven, 3 + 25 * float(np.mean(x[:2])) ** 1.5


def _study(seed: int, n: int) -> optuna.Study:
    """A study of a known function, with known errors of measurement."""
    rng = np.random.default_rng(seed)
    sampler = optuna.samplers.RandomSampler(seed=seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    for _ in range(n):
        trial = study.ask()
        true = _truth([trial.suggest_float(name, 0, 1) for name in _NAMES])
        trial.set_user_attr("standard_errors", list(_ERRORS))
        study.tell(trial, [t + e * rng.normal() for t, e in zip(true, _ERRORS, strict=True)])
    return study


def test_it_holds_the_true_hypervolume_as_often_as_it_says() -> None:
    """95 % of 20: fewer than 16 have a probability of 0.3 %."""
    held = 0
    for seed in range(20):
        study = _study(seed, 24)
        front = plain_report(study).trials
        model = fit_study(study)
        assert model is not None
        interval = hypervolume_interval(Adviser.of(model, study, _REFERENCE), front)
        assert interval is not None
        low, high = interval
        true = torch.tensor([_truth([t.params[n] for n in _NAMES]) for t in front]).double()
        held += low <= hypervolume(true, _REFERENCE, study.directions) <= high
        assert high - low < 0.5 * high
    assert held >= 16


def test_the_run_screen_and_the_front_tell_it(tmp_path: Path) -> None:
    path = write_spec(tmp_path, n_questions=8, study={"trials": 5}, importance={"kind": "none"})
    study, spec = mergefront.run(path), mergefront.StudySpec.from_yaml(path)
    report = mergefront.front(study)
    assert report.hypervolume_interval is not None
    low, high = report.hypervolume_interval
    assert 0 <= low < high
    assert report.to_json()["hypervolume_interval"] == (low, high)
    shown = f"hypervolume {report.hypervolume:.3f} [{low:.3f}, {high:.3f}]"
    assert shown in report.summary()
    assert report.hypervolume_curve is not None
    assert report.hypervolume_curve_interval is not None
    least, most = report.hypervolume_curve_interval
    assert 0 <= least <= report.hypervolume_curve <= most
    beside = f"uniform curve {report.hypervolume_curve:.3f} [{least:.3f}, {most:.3f}]"
    assert beside in report.summary()
    status, believed = status_of(study, spec), _Believed()
    assert believed.text is None
    believed.look(study, spec, status)
    assert believed.text == shown
    assert shown in facts(status, spec.metric_names, believed.text)
    assert "(measured)" not in facts(status, spec.metric_names, believed.text)
    believed.text = None
    believed.look(study, spec, status)  # nothing was measured since
    assert believed.text is None


def test_draws_of_two_objectives_are_independent_for_one_model_too() -> None:
    study = _study(0, 24)
    model = fit_study(study)
    assert model is not None
    adviser = Adviser.of(model, study, _REFERENCE)
    drawn = joint_draws(adviser, model.observations.X[:1])[:, 0]
    assert abs(float(torch.corrcoef(drawn.T)[0, 1])) < 0.2
