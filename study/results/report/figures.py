"""The pictures of a study. Every function returns a matplotlib figure."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from ....objectives.evaluation.metrics import metric_of
from ....objectives.merging.plan import DENSITY
from ...seeding import is_uniform
from ..front import FrontReport, hypervolume

matplotlib.use("Agg")

# Colours that stay apart for colour-blind readers (Okabe and Ito).
FRONT, UNIFORM, PARENT, OTHER = "#0072B2", "#E69F00", "#D55E00", "#9aa5ad"
PER_OBJECTIVE = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9")


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e8ebee", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def axis_label(name: str) -> str:
    """Return a metric with its unit and direction."""
    metric = metric_of(name)
    better = "higher" if metric.direction == "maximize" else "lower"
    return f"{name} ({metric.unit}), {better} is better"


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
    figure, axes = _axes(8.0, 5.0)
    _draw_plane(axes, report, 1, 0)
    axes.set_title(_title(report), fontsize=10)
    axes.legend(frameon=False, loc="lower right")
    return figure


def _title(report: FrontReport) -> str:
    return f"{report.study}: denoised values ± one posterior standard deviation"


def _plot_single(report: FrontReport) -> Figure:
    figure, axes = _axes(8.0, 5.0)
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
    axes.set_ylabel(axis_label(report.metric_names[0]))
    axes.set_title(_title(report), fontsize=10)
    axes.legend(frameon=False)
    return figure


def mean_weight(trial: FrozenTrial) -> float:
    """Return the mean of a trial's weights; a searched density is none."""
    weights = [float(value) for name, value in trial.params.items() if name != DENSITY]
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
    """Draw two objectives of all models; `joined` for a front of these two alone."""
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
        fmt="o-" if joined else "o",
        color=FRONT,
        ecolor="#0072B266",
        markersize=5,
        linewidth=1.4,
        label=f"front: hypervolume {report.hypervolume:.3f}",
        zorder=4,
    )
    _draw_parents(axes, report, x, y)
    _mark_knee(axes, report, x, y)
    axes.set_xlabel(axis_label(report.metric_names[x]))
    axes.set_ylabel(axis_label(report.metric_names[y]))


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
        label=f"uniform merges: hypervolume {report.hypervolume_uniform:.3f}",
        zorder=3,
    )


def _draw_parents(axes: Axes, report: FrontReport, x: int, y: int) -> None:
    for trial, row in zip(report.denoised.trials, report.denoised.means.tolist(), strict=True):
        if trial.user_attrs.get("phase") == "parent":
            point = (row[x], row[y])
            axes.plot(*point, "*", color=PARENT, markersize=15, zorder=5, markeredgecolor="white")
            axes.annotate(
                trial.user_attrs.get("label", "parent"),
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


def plot_hypervolume(report: FrontReport, study: optuna.Study) -> Figure:
    """Draw the hypervolume after each trial, by what is believed of the trials now.

    For one objective: the best value instead.
    """
    if len(report.metric_names) == 1:
        return _plot_best(report)
    figure, axes = _axes(8.0, 3.4)
    means = report.denoised.means
    numbers = range(1, len(means) + 1)
    history = [hypervolume(means[:n], report.reference_point, study.directions) for n in numbers]
    axes.step(numbers, history, where="post", color=FRONT, linewidth=1.8, label="all trials")
    axes.axhline(
        report.hypervolume_uniform, color=UNIFORM, linestyle="--", label="uniform merges alone"
    )
    n_seeds = sum(map(is_uniform, report.denoised.trials))
    axes.axvspan(0, n_seeds + 0.5, color="#f3f0e6", zorder=0)
    axes.set_xlim(0, len(means) + 1)
    axes.set_xlabel("COMPLETE trials (shaded: parents and uniform merges)")
    axes.set_ylabel("hypervolume of denoised values")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _plot_best(report: FrontReport) -> Figure:
    figure, axes = _axes(8.0, 3.4)
    values = report.denoised.means[:, 0].numpy()
    follow = np.maximum if report.directions[0] == "maximize" else np.minimum
    numbers = range(1, len(values) + 1)
    best = follow.accumulate(values)
    axes.step(numbers, best, where="post", color=FRONT, linewidth=1.8, label="best so far")
    axes.plot(numbers, values, "o", color=OTHER, markersize=4, label="each trial")
    axes.set_xlabel("COMPLETE trials")
    axes.set_ylabel(axis_label(report.metric_names[0]))
    axes.legend(frameon=False, loc="lower right")
    return figure


def plot_importance(report: FrontReport, importance: dict[str, float] | None) -> Figure:
    """Draw prior importance beside the relevance learned for each objective.

    Relevance is the inverse lengthscale, scaled so that the largest of an objective is 1.
    """
    names = sorted(report.denoised.relevance[0])
    figure, axes = _axes(max(8.0, 0.34 * len(names) + 2), 3.4)
    series = [("prior importance", importance, OTHER)] if importance else []
    for metric, row, colour in zip(
        report.metric_names, report.denoised.relevance, PER_OBJECTIVE, strict=False
    ):
        largest = max(row.values(), default=1.0)
        series.append((f"relevance: {metric}", {k: v / largest for k, v in row.items()}, colour))
    width = 0.8 / max(1, len(series))
    for index, (label, values, colour) in enumerate(series):
        offsets = np.arange(len(names)) + (index - (len(series) - 1) / 2) * width
        axes.bar(offsets, [values.get(n, 0.0) for n in names], width, label=label, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("relative to the largest")
    axes.legend(frameon=False, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def plot_weights(report: FrontReport) -> Figure:
    """Draw the weights of every model on the front, cheapest first; a density beside them.

    Colours reach from 0 to 1, or as far as the weights do: beyond the parents the map is a
    diverging one, so that such weights stand out.
    """
    trials = sorted(report.trials, key=lambda trial: trial.user_attrs["denoised"][-1])
    names = sorted(set.union(*(set(trial.params) for trial in trials)))
    weights = [name for name in names if name != DENSITY]
    figure, axes = _axes(max(8.0, 0.34 * len(names) + 3.4), 0.24 * len(trials) + 1.6)
    axes.grid(visible=False)
    grid = np.array([[float(t.params.get(n, np.nan)) for n in weights] for t in trials])
    reach = max(0.5, float(np.nanmax(np.abs(grid - 0.5))))
    image = axes.imshow(
        grid,
        aspect="auto",
        cmap="cividis" if reach == 0.5 else "PuOr",
        vmin=0.5 - reach,
        vmax=0.5 + reach,
    )
    axes.set_xticks(range(len(weights)), weights, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(trials)), [_row_label(t, report) for t in trials], fontsize=8)
    figure.colorbar(image, label="weight: 0 base, 1 expert")
    if DENSITY in names:
        _write_densities(axes, trials)
    return figure


def _write_densities(axes: Axes, trials: Sequence[FrozenTrial]) -> None:
    """Write each model's density beside its row: it is no weight."""
    right = axes.secondary_yaxis("right")
    shown = [f"{float(trial.params[DENSITY]):.2f}" for trial in trials]
    right.set_yticks(range(len(trials)), shown, fontsize=8)
    right.set_ylabel("density")


def _row_label(trial: FrozenTrial, report: FrontReport) -> str:
    pairs = zip(report.metric_names, trial.user_attrs["denoised"], strict=True)
    shown = ", ".join(f"{name} {value:.3g}" for name, value in pairs)
    return f"trial {trial.number} ({shown})"
