"""Both scores over the evaluations, mean and error bands."""

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from runs import BUDGET, Run
from scores import Reported, hypervolume_regret, reported_regret

mpl.use("Agg")
import matplotlib.pyplot as plt

_CHECKPOINTS = range(8, BUDGET + 1, 8)
# Okabe and Ito: they stay apart for colour-blind readers.
_COLORS = {"random": "#7f7f7f", "tpe": "#e69f00", "gp": "#d55e00", "mergefront": "#0072b2"}
# Label, sampler, what its user reads; all from the uniform start.
_LINES: tuple[tuple[str, str, Reported], ...] = (
    ("random, observed", "random", "observed"),
    ("TPE, observed", "tpe", "observed"),
    ("GPSampler, observed", "gp", "observed"),
    ("GPSampler, model means", "gp", "botorch"),
    ("MergeFront, denoised", "mergefront", "denoised"),
)


def draw(runs: Sequence[Run], path: Path, pool: Executor) -> None:
    """Draw the runs that started from uniform merges."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for label, sampler, reported in _LINES:
        members = [run for run in runs if _belongs(run, sampler)]
        picked = [partial(reported_regret, n=n, reported=reported) for n in _CHECKPOINTS]
        style = {"label": label, "color": _COLORS[sampler], "linestyle": "-"}
        if reported == "botorch":
            style["linestyle"] = "--"
        _band(axes[0], style, [list(pool.map(score, members)) for score in picked])
        if reported != "botorch":
            searched = [partial(hypervolume_regret, n=n) for n in _CHECKPOINTS]
            columns = [list(pool.map(score, members)) for score in searched]
            _band(axes[1], style | {"label": label.split(",")[0]}, columns)
    for axis, title in zip(axes, ("selection regret", "hypervolume regret"), strict=True):
        axis.set(xlabel="evaluations", title=title, ylim=(0, None), xticks=list(_CHECKPOINTS))
        axis.set_ylabel("share of the best possible that is lost, lower is better")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.suptitle("Mean over problems; bands are ± one standard error", fontsize=9)
    figure.savefig(path, dpi=150)


def _belongs(run: Run, sampler: str) -> bool:
    importance = "true" if sampler == "mergefront" else "none"
    task = run.task
    return (task.sampler, task.start, task.importance) == (sampler, "uniform", importance)


def _band(axis: Axes, style: dict[str, str], columns: list[list[float]]) -> None:
    values = np.array(columns)
    mean = values.mean(axis=1)
    error = values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    axis.plot(_CHECKPOINTS, mean, marker="o", markersize=3, **style)  # type: ignore[arg-type]
    axis.fill_between(_CHECKPOINTS, mean - error, mean + error, alpha=0.15, color=style["color"])
