"""Reading the surrogate off at measured trials."""

import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

import mergefront
from mergefront.samplers import SIPSampler, denoise, recommend


def _add(study: optuna.Study, value: float, high: float = 1.0, **params: float) -> None:
    distributions: dict[str, BaseDistribution] = {
        name: FloatDistribution(0.0, high) for name in params
    }
    study.add_trial(create_trial(value=value, params=params, distributions=distributions))


def test_a_study_without_trials_has_nothing_to_denoise() -> None:
    denoised = denoise(optuna.create_study(directions=["maximize", "minimize"]))
    assert denoised.trials == []
    assert denoised.means.shape == (0, 2)


def test_trials_that_share_no_parameter_keep_their_values() -> None:
    study = optuna.create_study()
    _add(study, 1.0, a=0.5)
    _add(study, 2.0, b=0.5)
    denoised = denoise(study)
    assert denoised.means.tolist() == [[1.0], [2.0]]
    assert denoised.relevance == [{}]


def test_means_are_in_the_studys_own_direction() -> None:
    study = optuna.create_study(direction="minimize")
    for index in range(12):
        _add(study, 100 + index / 11, a=index / 11)
    means = denoise(study).means.flatten()
    assert means.tolist() == pytest.approx([100 + i / 11 for i in range(12)], abs=0.1)


def test_a_trial_with_wider_bounds_does_not_remove_the_parameter() -> None:
    study = optuna.create_study()
    _add(study, 5.0, high=2.0, a=2.0)
    for index in range(6):
        _add(study, index / 5, a=index / 5)
    denoised = denoise(study)
    assert list(denoised.relevance[0]) == ["a"]
    assert bool(torch.isfinite(denoised.means).all())


def test_importance_of_unnamed_parameters_is_the_mean() -> None:
    study = optuna.create_study()
    for index in range(6):
        _add(study, float(index), a=index / 5, b=(index * 2 % 6) / 5)
    assert len(denoise(study, importance={"a": 1.0}).trials) == 6


def test_the_samplers_own_importance_is_used_by_default() -> None:
    study = optuna.create_study(
        sampler=SIPSampler(importance={"a": 1.0, "b": 0.0}, n_startup_trials=3, seed=0)
    )
    study.optimize(lambda t: t.suggest_float("a", 0, 1) - t.suggest_float("b", 0, 1), 5)
    told = denoise(study, {"a": 1.0, "b": 0.0})
    assert denoise(study).relevance == told.relevance
    assert denoise(study, {"a": 0.0, "b": 1.0}).relevance != told.relevance


@pytest.mark.parametrize("highs", [(1.0, 1.0), (1.0, 2.0)])
def test_a_trial_stopped_before_it_had_all_parameters_is_left_out(
    highs: tuple[float, float],
) -> None:
    study = optuna.create_study()
    for index in range(8):
        _add(study, index / 7, high=highs[index % 2], a=index / 7, b=(index * 3 % 8) / 7)
    stopped = create_trial(
        state=TrialState.PRUNED,
        value=0.3,
        params={"a": 0.3},
        distributions={"a": FloatDistribution(0.0, 1.0)},
        user_attrs={"standard_errors": [0.1]},
    )
    study.add_trial(stopped)
    denoised = denoise(study)
    assert [trial.number for trial in denoised.trials] == list(range(8))
    assert list(denoised.relevance[0]) == ["a", "b"]
    assert recommend(study)[0].params.keys() == {"a", "b"}
    assert mergefront.front(study).trials
