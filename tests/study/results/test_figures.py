"""The pictures are right for any number of objectives, and for weights beyond the parents."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from matplotlib.figure import Figure
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from mergefront import StudySpec
from mergefront.study.results.front import FrontReport, front_report, plain_report
from mergefront.study.results.report.figures import plot_hypervolume, plot_importance, plot_weights
from mergefront.study.results.report.front_figures import plot_front
from mergefront.study.results.report.plotly_figures import (
    front_graph,
    hypervolume_graph,
    importance_graph,
)
from mergefront.study.storage.connection import load_study


@pytest.fixture
def report(finished: Path) -> FrontReport:
    spec = StudySpec.from_yaml(finished)
    return front_report(load_study(spec), spec)


def _with(report: FrontReport, columns: list[int], names: list[str]) -> FrontReport:
    """Return the report of other objectives, taken from the two there are."""

    def cut(trial: object) -> None:
        for key in ("denoised", "denoised_errors"):
            values = trial.user_attrs[key]  # type: ignore[attr-defined]
            trial.user_attrs[key] = [values[c] for c in columns]  # type: ignore[attr-defined]

    for trial in report.trials:
        cut(trial)
    means, deviations = report.denoised.means[:, columns], report.denoised.deviations[:, columns]
    denoised = replace(report.denoised, means=means, deviations=deviations)
    reference = [report.reference_point[c] for c in columns]
    directions = [report.directions[c] for c in columns]
    return replace(
        report,
        metric_names=names,
        denoised=denoised,
        reference_point=reference,
        directions=directions,
    )


def _labels(figure: Figure) -> list[tuple[str, str]]:
    return [
        (axes.get_xlabel().split(" (")[0], axes.get_ylabel().split(" (")[0])
        for axes in figure.axes
    ]


def test_one_objective_is_drawn_over_the_mean_weight(report: FrontReport) -> None:
    one = _with(report, [0], ["accuracy"])
    assert _labels(plot_front(one)) == [
        ("mean weight of the layers: 0 base, 1 expert", "accuracy")
    ]
    title = front_graph(one).layout.title.text
    assert f"Best: trial {one.knee}" in title
    assert one.summary().startswith(f"best: trial {one.knee}, accuracy ")
    assert "hypervolume" not in one.summary()


def test_three_objectives_have_a_panel_for_each_pair(report: FrontReport) -> None:
    three = _with(report, [0, 1, 1], ["accuracy", "tokens", "latency"])
    figure = plot_front(three)
    assert _labels(figure) == [
        ("tokens", "accuracy"),
        ("latency", "accuracy"),
        ("latency", "tokens"),
    ]
    assert "2 of 3 objectives" in front_graph(three).layout.title.text
    front_lines = [line for line in figure.axes[0].lines if line.get_color() == "#0072B2"]
    assert {line.get_linestyle() for line in front_lines} == {"None"}


def test_the_layers_show_every_objective(report: FrontReport) -> None:
    names = ["accuracy", "tokens", "latency", "memory", "throughput"]
    five = _with(report, [0, 1, 1, 1, 1], names)
    relevance = [report.denoised.relevance[0]] * 5
    five = replace(five, denoised=replace(five.denoised, relevance=relevance))
    expected = [f"relevance: {name}" for name in names]
    assert [trace.name for trace in importance_graph(five, None).data] == expected
    legend = plot_importance(five, None).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == expected


def test_weights_beyond_the_parents_are_not_clipped(report: FrontReport) -> None:
    def limits() -> tuple[float, float]:
        (image,) = plot_weights(report).axes[0].images
        return image.get_clim()

    assert limits() == (0.0, 1.0)
    report.trials[0].params["layer_000"] = 1.5
    assert limits() == pytest.approx((-0.5, 1.5))


def test_a_density_is_no_weight(report: FrontReport) -> None:
    for trial in report.trials:
        trial.params["density"] = 0.4
    axes = plot_weights(report).axes[0]
    shown = [label.get_text() for label in axes.get_xticklabels()]
    assert "density" not in shown
    assert axes.child_axes[0].get_ylabel() == "density"
    assert torch.isfinite(report.denoised.means).all()


def test_the_shaded_area_is_the_hypervolume(report: FrontReport) -> None:
    (axes,) = plot_front(report).axes
    (area,) = axes.patches
    x, y = area.get_xy().T[:, :-1]  # type: ignore[attr-defined]
    shoelace = abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2
    assert shoelace == pytest.approx(report.hypervolume)


def test_pictures_compare_with_the_uniform_curve_where_there_is_one(
    report: FrontReport, finished: Path
) -> None:
    study = load_study(StudySpec.from_yaml(finished))
    for one, name in ((report, "uniform curve"), (replace(report, hypervolume_curve=None), None)):
        line = plot_hypervolume(one, study).axes[0].lines[-1]
        assert line.get_ydata() == [one.baseline, one.baseline]
        assert line.get_label() == f"{name or 'uniform merges'} alone"
    assert report.baseline >= report.hypervolume_uniform
    legends = [text.get_text() for text in plot_front(report).legends[0].get_texts()]
    assert f"uniform curve: hypervolume {report.baseline:.3f}" in legends
    names = [trace.name for trace in front_graph(report).data]
    assert f"uniform curve: hypervolume {report.baseline:.3f}" in names


STOPPED = 4


def _limited(m: int) -> tuple[optuna.Study, FrontReport]:
    """Return a study whose best values break a constraint or were stopped early, the first too."""
    study = optuna.create_study(directions=["maximize"] * m)
    for number, w in enumerate((0.9, 0.1, 0.3, 0.8, 0.45, 0.2, 0.4, 0.95)):
        trial = create_trial(
            state=TrialState.PRUNED if number == STOPPED else TrialState.COMPLETE,
            values=[w, 1 - w * w][:m],
            params={"layer_000": w},
            distributions={"layer_000": FloatDistribution(0, 1)},
            user_attrs={"standard_errors": [0.01] * m},
            constraints={"limit": w - 0.5},
        )
        study.add_trial(trial)
    return study, replace(plain_report(study), metric_names=["accuracy", "throughput"][:m])


def test_the_hypervolume_counts_what_may_be_in_the_front() -> None:
    study, report = _limited(2)
    drawn = np.asarray(plot_hypervolume(report, study).axes[0].lines[0].get_ydata(), dtype=float)
    (line,) = hypervolume_graph(report, study).data
    assert list(line.y) == drawn.tolist()
    assert len(drawn) == 8  # the stopped one, too, has a place
    assert drawn[-1] == pytest.approx(report.hypervolume)
    steps = np.diff(drawn, prepend=0.0)
    assert [number for number in range(8) if steps[number] > 1e-9] == [1, 2, 5, 6]


def test_the_best_so_far_is_one_that_may_be_taken() -> None:
    study, report = _limited(1)
    best = np.asarray(plot_hypervolume(report, study).axes[0].lines[0].get_ydata(), dtype=float)
    believed = report.denoised.means[:, 0].numpy()
    expected = [np.nan, *believed[[1, 2, 2, 2, 2, 6, 6]]]
    np.testing.assert_array_equal(best, expected)
    (line,) = hypervolume_graph(replace(report, reference_point=[0.0]), study).data
    assert line.y == pytest.approx([0.0, *expected[1:]])
