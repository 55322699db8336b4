"""The verdict on layer-wise weights: a gain over the uniform curve, or where on it to stay."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial

from mergefront.samplers import Adviser, fit_study
from mergefront.study.results.uniform_curve import (
    LayerwiseGain,
    curve_points,
    layerwise_gain,
    straight_curve,
)

Array = NDArray[np.float64]
NAMES = [f"layer_{i:03d}" for i in range(4)]
SPACE: dict[str, BaseDistribution] = dict.fromkeys(NAMES, FloatDistribution(0.0, 1.0))


def _verdict(truth: Callable[[Array], list[float]], phases: bool = True) -> LayerwiseGain | None:
    rng = np.random.default_rng(0)
    study = optuna.create_study(directions=["maximize", "minimize"])
    uniform = [np.full(4, level) for level in np.linspace(0, 1, 8)]
    for k, x in enumerate([*uniform, *rng.random((24, 4))]):
        told: dict[str, Any] = {"standard_errors": [0.02, 0.02]}
        if phases:
            told["phase"] = "search" if k >= 8 else "uniform"
        values = np.array(truth(x)) + 0.02 * rng.normal(size=2)
        params = dict(zip(NAMES, x.tolist(), strict=True))
        study.add_trial(
            create_trial(
                values=values.tolist(), params=params, distributions=SPACE, user_attrs=told
            )
        )
    model = fit_study(study)
    assert model is not None
    adviser = Adviser.of(model, study)
    weights = [[w, 1 - w] for w in (0.2, 0.4, 0.6, 0.8)]
    recommended = adviser.recommend(_tensor(weights))
    return layerwise_gain(adviser, recommended)


def _tensor(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.double)


def test_where_only_the_mean_matters_the_uniform_merge_is_named() -> None:
    verdict = _verdict(lambda x: [x.mean() ** 0.5, x.mean()])
    assert verdict is not None
    assert not verdict.shown
    assert verdict.sentence().startswith(
        f"layer-wise adds nothing here that we can show: take uniform {verdict.level:.2f}"
    )
    assert set(verdict.params.values()) == {verdict.level}
    assert verdict.to_json(["accuracy", "tokens"])["shown"] is False


def test_where_layers_differ_the_gain_is_shown() -> None:
    verdict = _verdict(lambda x: [x[:2].mean(), x[2:].mean()])
    assert verdict is not None
    assert verdict.shown
    assert verdict.gain > 0.2
    assert verdict.interval[0] < verdict.gain < verdict.interval[1]
    assert "over the uniform curve" in verdict.sentence()


def test_a_gain_that_only_doubled_deviations_doubt_is_called_probable() -> None:
    probable = LayerwiseGain(0.36, (-0.01, 0.78), 0.4, {}, [0.0, 0.0], [0.1, 0.1])
    assert not probable.shown and probable.probable  # 0.36 - 0.37 / 2 > 0
    assert "probably gain +36.0 % of utility [-1.0, +78.0]" in probable.sentence()
    assert probable.sentence().endswith("or take uniform 0.40")
    doubtful = replace(probable, gain=0.02, interval=(-0.1, 0.14))  # 0.02 - 0.12 / 2 < 0
    assert doubtful.sentence().startswith("layer-wise adds nothing here that we can show")


def test_without_uniform_merges_there_is_no_curve() -> None:
    assert _verdict(lambda x: [x[:2].mean(), x[2:].mean()], phases=False) is None


def test_several_experts_have_no_curve() -> None:
    """Half of each expert is labelled `uniform 1.00`, and no parameter says so."""
    space: dict[str, BaseDistribution] = {
        f"layer_{i:03d}@{k}": FloatDistribution(0.0, 1.0) for i in range(3) for k in (1, 2)
    }
    parents = [np.zeros(6), np.tile([1.0, 0.0], 3), np.tile([0.0, 1.0], 3)]
    uniform = [np.full(6, level / 2) for level in (0.25, 0.5, 0.75, 1.0)]
    adviser = _adviser([*parents, *uniform], space, lambda x: [x.mean() ** 0.5, x.mean()])
    assert layerwise_gain(adviser, adviser.recommend(_tensor([[0.5, 0.5]]))) is None
    assert curve_points(adviser) is None


def _adviser(
    points: list[Array], space: dict[str, BaseDistribution], truth: Callable[[Array], list[float]]
) -> Adviser:
    """A study of merges that are all on the curve, parents first."""
    study = optuna.create_study(directions=["maximize", "minimize"])
    for x in points:
        reach: dict[str, BaseDistribution] = {
            name: FloatDistribution(min(0.6, v), max(0.9, v)) if "@" not in name else space[name]
            for name, v in zip(space, x.tolist(), strict=True)
        }
        study.add_trial(
            create_trial(
                values=truth(x),
                params=dict(zip(space, x.tolist(), strict=True)),
                distributions=reach,
                user_attrs={"phase": "uniform", "standard_errors": [0.02, 0.02]},
            )
        )
    model = fit_study(study)
    assert model is not None
    return Adviser.of(model, study)


def test_a_parent_beyond_the_bounds_is_a_point_of_its_own() -> None:
    narrow: dict[str, BaseDistribution] = dict.fromkeys(NAMES, FloatDistribution(0.6, 0.9))
    levels = [0.0, 1.0, 0.65, 0.7, 0.75, 0.8, 0.85]
    points = [np.full(4, level) for level in levels]
    adviser = _adviser(points, narrow, lambda x: [1.0 - x.mean(), x.mean()])  # the base is best
    curve = curve_points(adviser)
    assert curve is not None
    outside = ((curve < -1e-9) | (curve > 1 + 1e-9)).any(dim=1)
    assert outside.sum() == 2  # the parents alone
    verdict = layerwise_gain(adviser, adviser.recommend(_tensor([[0.5, 0.5]])))
    assert verdict is not None
    assert (verdict.level, set(verdict.params.values())) == (0.0, {0.0})
    assert verdict.values[0] > 0.9  # the base's own, not those of the bound


def test_what_was_measured_is_joined_where_a_search_may_go() -> None:
    narrow = FloatDistribution(0.6, 0.9)
    trials = [
        create_trial(
            values=[0.0],
            params={"layer_000": level},
            distributions={"layer_000": narrow if 0.6 <= level <= 0.9 else reach},
        )
        for level, reach in ((0.0, FloatDistribution(0.0, 0.9)), (0.7, narrow), (0.8, narrow))
    ]
    values = np.array([[[0.0], [7.0], [8.0]]])
    found = straight_curve(trials, values, 7)[0, :, 0].tolist()
    # 0.7 * 6/7 = 0.6 is the bound; before it the parent alone.
    assert found[:2] == [0.0, pytest.approx(6.0)]
    assert found[2:] == pytest.approx([7 + k / 7 for k in range(8)])
