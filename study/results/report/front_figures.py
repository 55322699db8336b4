"""The picture of a front with matplotlib, for one objective, two, three or more."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from ....objectives.merging.settings import is_weight
from ...first_trials import is_uniform
from ..front import FrontReport
from ..indicators import Array
from .figures import FRONT, OTHER, PARENT, UNIFORM, axis_label, make_axes, plain


def plot_front(report: FrontReport) -> Figure:
    """Draw the models that were found, with errors, parents and the uniform curve.

    One objective: its value over the mean weight. Two: the last (the cost) on the horizontal
    axis, the first on the vertical one. More: one panel for each pair, without joining lines,
    since what is a front of all objectives is none of two.
    """
    n = len(report.metric_names)
    if n == 1:
        return _plot_single(report)
    if n > 2:
        return _plot_pairs(report)
    figure, axes = make_axes(8.0, 5.0)
    _draw_plane(axes, report, 1, 0)
    axes.set_title(_title(report), fontsize=10)
    figure.legend(frameon=False, loc="outside lower center", ncols=3)
    return figure


def _title(report: FrontReport) -> str:
    return f"{report.study}: denoised values ± one posterior standard deviation"


def _plot_single(report: FrontReport) -> Figure:
    figure, axes = make_axes(8.0, 5.0)
    denoised = report.denoised
    for uniform, colour, mark, label in (
        (False, OTHER, "o", "searched merges"),
        (True, UNIFORM, "s--", "parents and uniform merges"),
    ):
        chosen = [i for i, t in enumerate(denoised.trials) if is_uniform(t) is uniform]
        chosen.sort(key=lambda i: mean_weight(denoised.trials[i]))
        axes.errorbar(
            [mean_weight(denoised.trials[i]) for i in chosen],
            denoised.means[chosen, 0].tolist(),
            denoised.deviations[chosen, 0].tolist(),
            fmt=mark,
            color=colour,
            markersize=5,
            linewidth=1.2,
            label=label,
        )
    best = report.trials[0]
    point = (mean_weight(best), best.user_attrs["denoised"][0])
    axes.plot(*point, "*", color=FRONT, markersize=15, zorder=5, label=f"best: {best.number}")
    axes.set_xlabel("mean weight of the layers: 0 base, 1 expert")
    axes.set_ylabel(plain(axis_label(report.metric_names[0])))
    axes.set_title(_title(report), fontsize=10)
    axes.legend(frameon=False)
    return figure


def mean_weight(trial: FrozenTrial) -> float:
    """Return the mean of a trial's weights; a searched density is none."""
    weights = [float(value) for name, value in trial.params.items() if is_weight(name)]
    return float(np.mean(weights)) if weights else 0.0


def _plot_pairs(report: FrontReport) -> Figure:
    names = report.metric_names
    pairs = [(x, y) for y in range(len(names)) for x in range(y + 1, len(names))]
    columns = min(3, len(pairs))
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.8 * rows), dpi=150, layout="constrained")
    for place, (x, y) in enumerate(pairs):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e8ebee", linewidth=0.8)
        _draw_plane(axes, report, x, y, joined=False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside lower center", ncols=3)
    figure.suptitle(
        f"{report.study}: each panel shows 2 of {len(names)} objectives, denoised", fontsize=10
    )
    return figure


def _draw_plane(axes: Axes, report: FrontReport, x: int, y: int, joined: bool = True) -> None:
    """Draw two objectives of all models; steps join a front of these two alone."""
    means = report.denoised.means.numpy()
    others = [i for i, t in enumerate(report.denoised.trials) if not is_uniform(t)]
    axes.scatter(
        means[others, x], means[others, y], s=16, color=OTHER, label="searched merges", zorder=2
    )
    _draw_uniform(axes, report, x, y)
    rows = np.array([t.user_attrs["denoised"] for t in report.trials])
    errors = np.array([t.user_attrs["denoised_errors"] for t in report.trials])
    order = np.argsort(rows[:, x])
    axes.errorbar(
        rows[order, x],
        rows[order, y],
        xerr=errors[order, x],
        yerr=errors[order, y],
        fmt="o",
        color=FRONT,
        ecolor="#0072B266",
        markersize=5,
        linewidth=1.4,
        label=f"front: hypervolume {report.hypervolume:.3f}",
        zorder=4,
    )
    if joined:
        _draw_steps(axes, report, rows[order][:, [x, y]], x, y)
    _draw_parents(axes, report, x, y)
    _mark_knee(axes, report, x, y)
    axes.set_xlabel(plain(axis_label(report.metric_names[x])))
    axes.set_ylabel(plain(axis_label(report.metric_names[y])))


def _draw_steps(axes: Axes, report: FrontReport, points: Array, x: int, y: int) -> None:
    """Draw what the front dominates, by steps, and the point that it is measured from.

    Args:
        axes: To draw on.
        report: Of a study with two objectives.
        points: The front's, `n x 2`-dim.
        x: The objective on the horizontal axis.
        y: That on the vertical one.
    """
    far, low = report.reference_point[x], report.reference_point[y]
    axes.plot(far, low, "+", color="black", markersize=9, zorder=4)
    axes.annotate("reference point", (far, low), (-6, 4), textcoords="offset points", ha="right")
    flips = [1.0 if report.directions[i] == "maximize" else -1.0 for i in (x, y)]
    inside = points[np.all((points - [far, low]) * flips > 0, axis=1)]
    if not len(inside):
        return
    ordered = inside[np.argsort(-flips[0] * inside[:, 0])]  # from the best in x to the worst
    corners = [(ordered[0, 0], low)]
    for place, (a, b) in enumerate(ordered):
        corners += [(a, ordered[place - 1, 1] if place else low), (a, b)]
    corners.append((far, ordered[-1, 1]))
    axes.plot(*zip(*corners, strict=True), color=FRONT, linewidth=1.4, zorder=3)
    area = [*corners, (far, low)]
    axes.fill(*zip(*area, strict=True), color=FRONT, alpha=0.08, linewidth=0, zorder=1)


def _draw_uniform(axes: Axes, report: FrontReport, x: int, y: int) -> None:
    pairs = zip(report.denoised.trials, report.denoised.means.tolist(), strict=True)
    rows = sorted((mean_weight(t), row) for t, row in pairs if is_uniform(t))
    if not rows:
        return
    points = np.array([row for _, row in rows])
    axes.plot(
        points[:, x],
        points[:, y],
        "s--",
        color=UNIFORM,
        markersize=5,
        linewidth=1.2,
        label=f"{report.baseline_name}: hypervolume {report.baseline:.3f}",
        zorder=3,
    )


def _draw_parents(axes: Axes, report: FrontReport, x: int, y: int) -> None:
    for trial, row in zip(report.denoised.trials, report.denoised.means.tolist(), strict=True):
        if trial.user_attrs.get("phase") == "parent":
            point = (row[x], row[y])
            axes.plot(*point, "*", color=PARENT, markersize=15, zorder=5, markeredgecolor="white")
            axes.annotate(
                plain(trial.user_attrs.get("label", "parent")),
                point,
                xytext=(8, -14),
                textcoords="offset points",
                color=PARENT,
                fontweight="bold",
            )


def _mark_knee(axes: Axes, report: FrontReport, x: int, y: int) -> None:
    for trial in report.trials:
        if trial.number == report.knee:
            row = trial.user_attrs["denoised"]
            axes.annotate(
                f"knee: trial {trial.number}",
                (row[x], row[y]),
                xytext=(-10, 22),
                textcoords="offset points",
                ha="right",
                color=FRONT,
                arrowprops={"arrowstyle": "-", "color": FRONT},
            )
