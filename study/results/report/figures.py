"""The pictures of a study. Every function returns a matplotlib figure."""

from collections.abc import Iterable, Sequence
from itertools import cycle

import matplotlib
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial

from ....objectives.evaluation.metric_table import metric_of
from ....objectives.merging.settings import DENSITY, is_weight, with_arm
from ...first_trials import is_uniform
from ..front import FrontReport, eligible
from ..indicators import hypervolume_history

matplotlib.use("Agg")

# Colours that stay apart for colour-blind readers (Okabe and Ito).
FRONT, UNIFORM, PARENT, OTHER = "#0072B2", "#E69F00", "#D55E00", "#9aa5ad"
PER_OBJECTIVE = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9")


def make_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of a size in inches, and its axes."""
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


def in_order(names: Iterable[str]) -> list[str]:
    """Return parameters as they lie in the model: embeddings, layers, head, and the rest."""
    places = {"embeddings": 0, "head": 2, "density": 3}
    return sorted(names, key=lambda name: (places.get(name.split("@")[0], 1), name))


def plain(text: str) -> str:
    """Return a text that matplotlib shows as it is: dollar signs would begin a formula."""
    return text.replace("$", r"\$")


def plot_hypervolume(report: FrontReport, study: optuna.Study) -> Figure:
    """Draw the hypervolume after each trial, by what is believed of the trials now.

    For one objective: the best value instead.
    """
    if len(report.metric_names) == 1:
        return _plot_best(report)
    figure, axes = make_axes(8.0, 3.4)
    counted = report.counted
    numbers = range(1, len(counted) + 1)
    history = hypervolume_history(counted, report.reference_point, study.directions)
    axes.step(numbers, history, where="post", color=FRONT, linewidth=1.8, label="all trials")
    axes.axhline(
        report.baseline, color=UNIFORM, linestyle="--", label=f"{report.baseline_name} alone"
    )
    n_seeds = sum(map(is_uniform, report.denoised.trials))
    axes.axvspan(0, n_seeds + 0.5, color="#f3f0e6", zorder=0)
    axes.set_xlim(0, len(counted) + 1)
    axes.set_xlabel("measured trials (shaded: parents and uniform merges)")
    axes.set_ylabel("hypervolume of denoised values")
    axes.legend(frameon=False, loc="lower right")
    return figure


def _plot_best(report: FrontReport) -> Figure:
    figure, axes = make_axes(8.0, 3.4)
    values = report.denoised.means[:, 0].numpy()
    # These pass over nan: the best begins with the first that may be in a front.
    follow = np.fmax if report.directions[0] == "maximize" else np.fmin
    numbers = range(1, len(values) + 1)
    best = follow.accumulate(np.where(eligible(report.denoised).numpy(), values, np.nan))
    axes.step(numbers, best, where="post", color=FRONT, linewidth=1.8, label="best so far")
    axes.plot(numbers, values, "o", color=OTHER, markersize=4, label="each trial")
    axes.set_xlabel("measured trials")
    axes.set_ylabel(plain(axis_label(report.metric_names[0])), fontsize=8)
    axes.legend(frameon=False, loc="lower right")
    return figure


def plot_importance(report: FrontReport, importance: dict[str, float] | None) -> Figure:
    """Draw prior importance beside the relevance learned for each objective.

    Relevance is the inverse lengthscale, scaled so that the largest of an objective is 1.
    """
    names = in_order(report.denoised.relevance[0])
    figure, axes = make_axes(max(8.0, 0.34 * len(names) + 2), 3.4)
    series = [("prior importance", importance, OTHER)] if importance else []
    for metric, row, colour in zip(
        report.metric_names, report.denoised.relevance, cycle(PER_OBJECTIVE), strict=False
    ):
        largest = max(row.values(), default=1.0)
        label = plain(f"relevance: {metric}")
        series.append((label, {k: v / largest for k, v in row.items()}, colour))
    width = 0.8 / max(1, len(series))
    for index, (label, values, colour) in enumerate(series):
        offsets = np.arange(len(names)) + (index - (len(series) - 1) / 2) * width
        axes.bar(offsets, [values.get(n, 0.0) for n in names], width, label=label, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylim(0, 1.05)
    axes.set_ylabel("relative to the largest")
    # Three beside one another are as wide as the narrowest figure.
    columns = min(3, len(series))
    axes.legend(frameon=False, ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def plot_weights(report: FrontReport) -> Figure:
    """Draw the weights of every model on the front, cheapest first; a density beside them.

    Colours reach from 0 to 1, or as far as the weights do: beyond the parents the map is a
    diverging one, so that such weights stand out.
    """
    trials = sorted(report.trials, key=lambda trial: trial.user_attrs["denoised"][-1])
    names = in_order(set.union(*(set(trial.params) for trial in trials)))
    weights = [name for name in names if is_weight(name)]
    figure, axes = make_axes(max(8.0, 0.34 * len(names) + 3.4), max(2.6, 0.24 * len(trials) + 1.6))
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
    figure.colorbar(image).set_label("weight: 0 base, 1 expert", fontsize=8)
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
    return plain(f"{with_arm(f'trial {trial.number}', trial.params)} ({shown})")
