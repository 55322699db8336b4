"""The pictures of a study for optuna-dashboard: Plotly figures."""

import html
from collections.abc import Sequence
from itertools import cycle

import optuna
import plotly.graph_objects as go

from ...first_trials import is_uniform
from ..front import FrontReport
from ..indicators import hypervolume_history
from .figures import FRONT, OTHER, PARENT, PER_OBJECTIVE, UNIFORM, axis_label, in_order
from .front_figures import mean_weight

# The legend below: beside it, half of the dashboard's narrow cards would be legend.
_LAYOUT = {
    "template": "plotly_white",
    "font": {"size": 10},
    "margin": {"l": 70, "r": 20, "t": 90, "b": 60},
    "legend": {"orientation": "h", "y": -0.25},
}


def graphs(
    report: FrontReport, study: optuna.Study, importance: dict[str, float] | None
) -> dict[str, go.Figure]:
    """Return the figures by the identifiers under which the dashboard keeps them."""
    return {
        "front": front_graph(report),
        "hypervolume": hypervolume_graph(report, study),
        "importance": importance_graph(report, importance),
    }


def _titled(title: str, *sentences: str) -> str:
    """Return a title with what the picture means in small letters below it."""
    small = (f'<span style="font-size: 11px">{sentence}</span>' for sentence in sentences)
    return "<br>".join([title, *small])


def front_graph(report: FrontReport) -> go.Figure:
    """Draw the models with errors, parents and the uniform curve.

    One objective is drawn over the mean weight, more as the first two of them.
    """
    names = report.metric_names
    if len(names) == 1:
        return _single_graph(report)
    x, y = 1, 0
    figure = go.Figure()
    figure.add_traces([_searched(report, x, y), _uniform(report, x, y), _front(report, x, y)])
    figure.add_trace(_parents(report, x, y))
    more = f", 2 of {len(names)} objectives" if len(names) > 2 else ""
    figure.update_layout(
        title=_titled(
            f"Front, denoised (± 1 deviation){more}",
            "Optuna's own plots show single measurements: lucky ones look better there.",
        ),
        xaxis_title=html.escape(axis_label(names[x])),
        yaxis_title=html.escape(axis_label(names[y])),
        **_LAYOUT,
    )
    return figure


def _single_graph(report: FrontReport) -> go.Figure:
    figure, denoised = go.Figure(), report.denoised
    trials = denoised.trials
    kinds = (("searched merges", OTHER, False), ("parents and uniform merges", UNIFORM, True))
    for name, colour, uniform in kinds:
        chosen = [i for i, t in enumerate(trials) if is_uniform(t) is uniform]
        figure.add_scatter(
            x=[mean_weight(trials[i]) for i in chosen],
            y=denoised.means[chosen, 0].tolist(),
            error_y={"array": denoised.deviations[chosen, 0].tolist(), "thickness": 1},
            text=[_title(trials[i]) for i in chosen],
            mode="markers",
            marker={"color": colour},
            name=name,
        )
    figure.update_layout(
        title=f"Best: trial {report.knee}, denoised (± 1 deviation)",
        xaxis_title="mean weight of the layers: 0 base, 1 expert",
        yaxis_title=html.escape(axis_label(report.metric_names[0])),
        **_LAYOUT,
    )
    return figure


def _points(
    report: FrontReport, chosen: Sequence[int], x: int, y: int
) -> dict[str, Sequence[object]]:
    means = report.denoised.means.tolist()
    return {
        "x": [means[i][x] for i in chosen],
        "y": [means[i][y] for i in chosen],
        "text": [_title(report.denoised.trials[i]) for i in chosen],
    }


def _title(trial: optuna.trial.FrozenTrial) -> str:
    # Plotly reads some HTML in texts.
    label = html.escape(str(trial.user_attrs.get("label", "")))
    return f"trial {trial.number} {label}".strip()


def _searched(report: FrontReport, x: int, y: int) -> go.Scatter:
    chosen = [i for i, trial in enumerate(report.denoised.trials) if not is_uniform(trial)]
    points = _points(report, chosen, x, y)
    marker = {"color": OTHER, "size": 6}
    return go.Scatter(**points, mode="markers", marker=marker, name="searched merges")


def _uniform(report: FrontReport, x: int, y: int) -> go.Scatter:
    trials = report.denoised.trials
    chosen = [i for i, trial in enumerate(trials) if is_uniform(trial)]
    chosen.sort(key=lambda i: mean_weight(trials[i]))
    name = f"{report.baseline_name}: hypervolume {report.baseline:.3f}"
    line = {"color": UNIFORM, "dash": "dash"}
    points = _points(report, chosen, x, y)
    return go.Scatter(**points, mode="lines+markers", line=line, name=name)


def _front(report: FrontReport, x: int, y: int) -> go.Scatter:
    trials = sorted(report.trials, key=lambda trial: trial.user_attrs["denoised"][x])
    values = [trial.user_attrs["denoised"] for trial in trials]
    errors = [trial.user_attrs["denoised_errors"] for trial in trials]
    return go.Scatter(
        x=[row[x] for row in values],
        y=[row[y] for row in values],
        error_x={"array": [row[x] for row in errors], "thickness": 1},
        error_y={"array": [row[y] for row in errors], "thickness": 1},
        text=[_title(trial) for trial in trials],
        # What is a front of more objectives is none of two: no line.
        mode="lines+markers" if len(report.metric_names) == 2 else "markers",
        line={"color": FRONT},
        name=f"front: hypervolume {report.hypervolume:.3f}",
    )


def _parents(report: FrontReport, x: int, y: int) -> go.Scatter:
    trials = report.denoised.trials
    chosen = [i for i, t in enumerate(trials) if t.user_attrs.get("phase") == "parent"]
    marker = {"color": PARENT, "size": 14, "symbol": "star"}
    points = _points(report, chosen, x, y)
    return go.Scatter(**points, mode="markers", marker=marker, name="parents")


def hypervolume_graph(report: FrontReport, study: optuna.Study) -> go.Figure:
    """Draw the hypervolume after each trial, by what is believed of the trials now."""
    counted = report.counted
    numbers = list(range(1, len(counted) + 1))
    history = hypervolume_history(counted, report.reference_point, study.directions)
    line = {"color": FRONT, "shape": "hv"}
    figure = go.Figure(go.Scatter(x=numbers, y=history, line=line, name="all trials"))
    figure.add_hline(
        report.baseline,
        line={"color": UNIFORM, "dash": "dash"},
        annotation_text=f"{report.baseline_name} alone",
    )
    figure.update_layout(
        title=_titled(
            "Hypervolume of denoised values",
            "Area between front and reference point after each trial, by what is believed today.",
        ),
        xaxis_title="measured trials",
        yaxis_title="hypervolume",
        **_LAYOUT,
    )
    return figure


def importance_graph(report: FrontReport, importance: dict[str, float] | None) -> go.Figure:
    """Draw prior importance beside the relevance learned for each objective."""
    names = in_order(report.denoised.relevance[0])
    figure = go.Figure()
    if importance:
        values = [importance.get(name, 0.0) for name in names]
        figure.add_bar(x=names, y=values, name="prior importance", marker={"color": OTHER})
    for metric, row, colour in zip(
        report.metric_names, report.denoised.relevance, cycle(PER_OBJECTIVE), strict=False
    ):
        largest = max(row.values(), default=1.0)
        values = [row[name] / largest for name in names]
        name = f"relevance: {html.escape(metric)}"
        figure.add_bar(x=names, y=values, name=name, marker={"color": colour})
    figure.update_layout(
        title=_titled(
            "Prior importance, learned relevance",
            "Prior: how far fine-tuning moved the layer. Relevance: how quickly the objective",
            "bends with its weight. Optuna's hyperparameter importance is a share of variance.",
        ),
        yaxis_title="relative to the largest",
        barmode="group",
        **_LAYOUT,
    )
    return figure
