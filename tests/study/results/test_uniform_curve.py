"""The verdict on layer-wise weights: a gain over the uniform curve, or where on it to stay."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import create_trial

from mergefront.samplers import Adviser, fit_study
from mergefront.study.results.uniform_curve import LayerwiseGain, layerwise_gain

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
