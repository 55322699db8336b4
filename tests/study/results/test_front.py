"""The denoised front, and the pictures made of it."""

import base64
import json
import math
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import pytest
import torch
import yaml
from matplotlib.image import imread
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from mergefront.errors import StudyError
from mergefront.study import StudySpec, pareto_front
from mergefront.study.results.front import front_report, hypervolume
from mergefront.study.results.front_table import signs_of_trial
from mergefront.study.results.indicators import hypervolume_history
from mergefront.study.results.report.page import write_report
from mergefront.study.results.validation import validate
from mergefront.study.results.validation_study import open_validation, record
from mergefront.study.run import make_objective
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import write_spec


@pytest.mark.parametrize(
    ("values", "reference", "directions", "volume"),
    [
        ([[1.0, 1.0]], [0.0, 0.0], ["maximize"] * 2, 1.0),
        ([[3.0, 1.0], [1.0, 3.0]], [0.0, 0.0], ["maximize"] * 2, 5.0),  # 3 + 3 - 1
        ([[0.9, 10.0], [0.5, 2.0]], [0.4, 20.0], ["maximize", "minimize"], 5.8),  # .5*10 + .1*8
        ([[0.3, 30.0]], [0.4, 20.0], ["maximize", "minimize"], 0.0),
        ([[2.0], [5.0]], [1.0], ["maximize"], 4.0),
        ([[2.0], [5.0]], [6.0], ["minimize"], 4.0),
        ([[1.0, 1.0, 2.0]], [0.0, 0.0, 0.0], ["maximize"] * 3, 2.0),
    ],
)
def test_hypervolume_against_hand_calculations(
    values: list[list[float]], reference: list[float], directions: list[Any], volume: float
) -> None:
    study = optuna.create_study(directions=directions)
    points = torch.tensor(values, dtype=torch.double)
    assert hypervolume(points, reference, study.directions) == pytest.approx(volume)


def _noisy_study(n: int, noise: float) -> optuna.Study:
    """Points on a line: value (x, 1 - x), all equally good, measured with noise."""
    rng = np.random.default_rng(0)
    study = optuna.create_study(directions=["maximize", "maximize"])
    for x in np.linspace(0, 1, n):
        values = np.array([x, 1 - x]) + noise * rng.normal(size=2)
        trial = create_trial(
            values=values.tolist(),
            params={"w": float(x)},
            distributions={"w": FloatDistribution(0, 1)},
            user_attrs={"standard_errors": [noise, noise]},
        )
        study.add_trial(trial)
    return study


def test_the_hypervolumes_history_is_that_of_every_beginning() -> None:
    rng = np.random.default_rng(0)
    both: list[Literal["maximize", "minimize"]] = ["maximize", "minimize"]
    for directions in (both, both[1:], ["maximize", *both]):
        m = len(directions)
        values = torch.from_numpy(rng.integers(0, 9, (60, m)).astype(float))  # with ties
        study = optuna.create_study(directions=directions)
        told = ([4.0] * m, study.directions)
        expected = [hypervolume(values[:n], *told) for n in range(1, 61)]
        assert hypervolume_history(values, *told) == pytest.approx(expected)
        assert expected[-1] > 0


def test_denoised_values_are_nearer_the_truth_than_the_lucky_winners() -> None:
    study = _noisy_study(40, 0.1)
    winners = [sum(trial.values) for trial in study.best_trials]
    believed = [sum(trial.user_attrs["denoised"]) for trial in pareto_front(study)]
    # Every true point sums to 1.
    assert np.mean(winners) > 1.1
    assert np.mean(believed) == pytest.approx(1.0, abs=0.05)


def test_the_front_is_sorted_non_dominated_and_leaves_the_study_alone() -> None:
    study = _noisy_study(20, 0.02)
    front = pareto_front(study)
    first = [trial.user_attrs["denoised"][0] for trial in front]
    second = [trial.user_attrs["denoised"][1] for trial in front]
    assert first == sorted(first, reverse=True)
    assert second == sorted(second)
    assert all(len(trial.user_attrs["denoised_errors"]) == 2 for trial in front)
    assert all("denoised" not in trial.user_attrs for trial in study.trials)


def test_any_study_has_a_front() -> None:
    assert pareto_front(optuna.create_study(directions=["maximize", "minimize"])) == []
    study = optuna.create_study()
    study.sampler = optuna.samplers.RandomSampler(seed=0)
    study.optimize(lambda t: t.suggest_float("x", -1, 1) ** 2 + t.suggest_int("k", 0, 2), 20)
    (best,) = pareto_front(study)
    assert best.user_attrs["denoised"][0] == pytest.approx(study.best_value, abs=0.3)


def test_the_reports_numbers_fit_together(finished: Path) -> None:
    spec = StudySpec.from_yaml(finished)
    report = front_report(load_study(spec), spec)
    content = json.loads(json.dumps(report.to_json()))
    assert content.keys() >= {
        "study",
        "directions",
        "metric_names",
        "reference_point",
        "anchors",
        "hypervolume",
        "hypervolume_uniform",
        "trials",
    }
    base, expert = content["anchors"]["base"], content["anchors"]["expert"]
    reference = content["reference_point"]
    low, high = sorted([base["accuracy"], expert["accuracy"]])
    assert reference[0] == pytest.approx(low - 0.1 * (high - low))
    few, many = sorted([base["tokens"], expert["tokens"]])
    assert reference[1] == pytest.approx(many + 0.1 * (many - few))
    points = torch.tensor(
        [list(trial["denoised"].values()) for trial in content["trials"]], dtype=torch.double
    )
    study = load_study(spec)
    assert content["hypervolume"] == pytest.approx(
        hypervolume(points, reference, study.directions)
    )
    assert content["hypervolume"] >= content["hypervolume_uniform"] > 0
    # The curve goes through the uniform merges and lies between them, too.
    assert content["hypervolume_curve"] >= content["hypervolume_uniform"]
    assert f"uniform curve {content['hypervolume_curve']:.3f}" in report.summary()
    trial = content["trials"][0]
    assert trial.keys() >= {"number", "values", "standard_errors", "denoised", "params"}
    assert trial["values"].keys() == {"accuracy", "tokens"}
    assert content["knee"] in [trial["number"] for trial in content["trials"]]


def test_a_given_reference_is_used(finished: Path) -> None:
    spec = StudySpec.from_yaml(finished)
    content = spec.model_dump(mode="json")
    content["objectives"][1]["reference"] = 40.0
    changed = StudySpec.parse(content, spec.folder)
    report = front_report(load_study(spec), changed)
    assert report.reference_point[1] == 40.0


def test_an_empty_study_has_no_report(spec_path: Path) -> None:
    spec = StudySpec.from_yaml(spec_path)
    study = optuna.create_study(study_name="empty", directions=spec.directions)
    with pytest.raises(StudyError, match="no finished trial yet"):
        front_report(study, spec)


def test_the_report_is_self_contained_and_its_pictures_show_something(
    finished: Path, tmp_path: Path
) -> None:
    spec = StudySpec.from_yaml(finished)
    page, *pictures = write_report(load_study(spec), spec, tmp_path / "report")
    names = [picture.stem for picture in pictures]
    assert names == ["front", "hypervolume", "importance", "weights"]
    text = page.read_text()
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    embedded = re.findall(r"data:image/png;base64,([^\"]+)", text)
    # The page draws the front itself; its picture lies beside, for papers.
    assert [base64.b64decode(e) for e in embedded] == [p.read_bytes() for p in pictures[1:]]
    for picture in pictures:
        pixels = imread(picture)
        assert pixels.shape[0] > 300
        assert pixels[..., :3].std() > 0.05
    filled_in = r"<style>.*?</style>|<script.*?</script>|base64,[^\"]+"
    assert "$" not in re.sub(filled_in, "", text, flags=re.DOTALL)


def test_the_report_shows_search_and_validation_side_by_side(
    finished: Path, tmp_path: Path
) -> None:
    spec = StudySpec.from_yaml(finished)
    study = load_study(spec)
    report = front_report(study, spec)
    objective = make_objective(load_inputs(finished), "validation")
    written = open_validation(study, "validation")
    record(validate(report, study, objective, "validation"), written, spec)
    text = write_report(study, spec, tmp_path)[0].read_text()
    for metric in spec.metric_names:
        assert text.count(f'aria-label="{metric}, validation">validation</button>') == 1
    assert "24 questions of the split <b>validation</b>" in text
    # Trial, role; believed, measured and validation of two objectives; beyond the uniform curve;
    # tied; signs of trouble that the models show.
    seen = [signs_of_trial(trial)[0] for trial in report.trials]
    n_signs = sum(any(counts[sign] for counts in seen) for sign in seen[0])
    cells = 2 + 3 * 2 + 1 + bool(report.tied) + n_signs
    rows = re.findall(r"<tr [^>]*data-n=.*?</tr>", text)
    assert [row.count("<td ") for row in rows] == [cells] * len(report.trials)


@pytest.mark.parametrize("metrics", [["accuracy"], ["accuracy", "tokens", "truncation"]])
def test_reports_of_one_and_three_objectives(
    finished: Path, tmp_path: Path, metrics: list[str]
) -> None:
    spec = StudySpec.from_yaml(finished)
    content = spec.model_dump(mode="json") | {"objectives": [{"metric": m} for m in metrics]}
    changed = StudySpec.parse(content, spec.folder)
    study = optuna.create_study(directions=changed.directions)
    for trial in load_study(spec).get_trials():
        values = [*trial.values, 0.1 * trial.number][: len(metrics)]
        errors = [*trial.user_attrs["standard_errors"], 0.05][: len(metrics)]
        attributes = trial.user_attrs | {"standard_errors": errors}
        study.add_trial(
            create_trial(
                values=values,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=attributes,
            )
        )
    report = front_report(study, changed)
    assert math.isfinite(report.hypervolume)
    assert len(write_report(study, changed, tmp_path)) == 5


def _parents_and_others(
    spec: StudySpec, parents: list[list[float]], others: list[list[float]]
) -> optuna.Study:
    study = optuna.create_study(directions=spec.directions)
    rows = [*parents, *others]
    for number, values in enumerate(rows):
        labels = {"phase": "parent", "label": ["base", "expert"][number]} if number < 2 else {}
        trial = create_trial(
            values=values,
            params={"w": number / len(rows)},
            distributions={"w": FloatDistribution(0, 1)},
            user_attrs={"standard_errors": [0.01] * len(values), **labels},
        )
        study.add_trial(trial)
    return study


@pytest.mark.parametrize("third", [0.0, 0.05])
def test_tied_and_constant_objectives_leave_volume_and_knee_to_the_others(
    tmp_path: Path, third: float
) -> None:
    metrics = ["accuracy", "tokens", "truncation", "think_tokens"]
    path = write_spec(tmp_path)
    content = yaml.safe_load(path.read_text())
    content["objectives"] = [{"metric": metric} for metric in metrics]
    spec = StudySpec.parse(content, tmp_path)
    parents = [[0.2, 10.0, 0.0, 0.0], [0.9, 50.0, 0.0, 0.0]]
    others = [[0.3 + 0.1 * k, 15.0 + 5 * k, third * (k % 2), 0.0] for k in range(5)]
    report = front_report(_parents_and_others(spec, parents, others), spec)
    assert report.hypervolume > 0
    assert report.reference_point[2] > 0 and report.reference_point[3] > 0
    balanced = next(trial for trial in report.trials if trial.number == report.knee)
    assert 0.3 < balanced.user_attrs["denoised"][0] < 0.85
    json.dumps(report.to_json(), allow_nan=False)


def test_the_studys_own_metrics_rule(finished: Path, tmp_path: Path) -> None:
    study, spec = load_study(StudySpec.from_yaml(finished)), StudySpec.from_yaml(finished)
    content = spec.model_dump(mode="json")
    content["objectives"] = [
        {"metric": "tokens", "reference": 60.0},
        {"metric": "accuracy"},
        {"metric": "truncation"},
    ]
    report = front_report(study, StudySpec.parse(content, spec.folder))
    expected = front_report(study, spec)
    assert report.metric_names == ["accuracy", "tokens"]
    assert report.anchors == expected.anchors
    assert report.reference_point == [expected.reference_point[0], 60.0]
