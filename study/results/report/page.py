"""A study as pictures and one self-contained, interactive page: no server, no network."""

import base64
import datetime
import html
import io
import shlex
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState

from ...._version import __version__
from ....objectives.evaluation import SPLITS
from ...seeding import importance_of
from ...spec.study_spec import StudySpec
from ..beside import check_writable
from ..front import FrontReport, front_report
from ..front_table import errors_of, role, rounded
from ..validation_study import last_validation
from .figures import plot_front, plot_hypervolume, plot_importance, plot_weights
from .page_data import as_script, page_data

Validations = list[dict[str, Any]]

_PARALLEL = '<div id="parallel" class="panel"></div>\n'


@dataclass(frozen=True)
class Picture:
    """One figure of the page.

    Args:
        name: Of the PNG file.
        title: Heading above it.
        caption: What to see in it.
        figure: The picture.
    """

    name: str
    title: str
    caption: str
    figure: Figure


def write_report(
    study: optuna.Study, spec: StudySpec, out: Path, spec_path: str = "SPEC"
) -> list[Path]:
    """Write the PNG files and `report.html`; return what was written, the page first.

    Args:
        study: With measured trials.
        spec: Of the study.
        out: Directory to write into.
        spec_path: The study's file, as it is named in the page's commands.

    Raises:
        StudyError: If no trial is COMPLETE yet, or none keeps to the constraints.
        SpecError: If `out` cannot be written.
    """
    check_writable(out)
    report = front_report(study, spec)
    report.check_models()
    out.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(report, study)
    images = {picture.name: _png(picture.figure) for picture in pictures}
    images["front"] = _png(plot_front(report))
    for name, data in images.items():
        (out / f"{name}.png").write_bytes(data)
    page = out / "report.html"
    validations = [v for split in SPLITS if (v := last_validation(study, split)) is not None]
    figures = "".join(_figure(picture, images[picture.name]) for picture in pictures)
    page.write_text(_page(report, study, figures, validations, spec_path), encoding="utf-8")
    return [page, *(out / f"{name}.png" for name in images)]


def _pictures(report: FrontReport, study: optuna.Study) -> list[Picture]:
    """Return what the page shows as images; the front it draws itself."""
    return [
        Picture(
            "hypervolume",
            "Search",
            "How much of the objective space the search had covered after each trial, by what is "
            "believed of the trials today.",
            plot_hypervolume(report, study),
        ),
        Picture(
            "importance",
            "Layers",
            "How far fine-tuning moved each layer (prior), and how quickly each objective changes "
            "with its weight (learned: inverse lengthscales, relative to the largest).",
            plot_importance(report, importance_of(study)),
        ),
        Picture(
            "weights",
            "Weights of the models above",
            "One row per model, one column per layer.",
            plot_weights(report),
        ),
    ]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _page(
    report: FrontReport,
    study: optuna.Study,
    figures: str,
    validations: Validations,
    spec_path: str,
) -> str:
    several = len(report.metric_names) > 1
    cards = _cards(report, study, validations)
    return Template(_text("report.html.template")).substitute(
        title=html.escape(report.study),
        lead=_lead(report),
        cards="".join(f"<div><b>{html.escape(v)}</b><span>{k}</span></div>\n" for k, v in cards),
        heading="Pareto front" if several else "Models",
        key=_key(bool(validations), several),
        parallel=_PARALLEL if len(report.metric_names) > 2 else "",
        toggles=_toggles(validations),
        sliders="".join(_slider(report, place) for place in range(len(report.metric_names))),
        table_title="Models on the front" if several else "Best model",
        table=_table(report, validations),
        validations="".join(_validation(content) for content in validations),
        figures=figures,
        footer=_footer(study),
        style=_text("report.css"),
        script=_text("report.js"),
        data=as_script(page_data(report, validations, shlex.quote(spec_path))),
    )


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _figure(picture: Picture, data: bytes) -> str:
    encoded = base64.b64encode(data).decode()
    return (
        f"<section><h2>{html.escape(picture.title)}</h2><figure>"
        f'<img alt="{html.escape(picture.caption)}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure></section>\n"
    )


def _lead(report: FrontReport) -> str:
    names = " against ".join(html.escape(name) for name in report.metric_names)
    return f"Layer-wise merges: {names}. Made by MergeFront {__version__}."


def _key(validated: bool, several: bool) -> str:
    entries = [
        ("front", "●", "front" if several else "best"),
        ("other", "●", "other searched merges"),
        ("uniform", "■", "uniform merges"),
        ("parent", "▲", "parents"),
    ]
    if validated:
        entries.append(("validated", "◇", "validated on fresh questions"))
    return " ".join(
        f'<span><b style="color: var(--{colour})">{mark}</b> {text}</span>'
        for colour, mark, text in entries
    )


def _toggles(validations: Validations) -> str:
    boxes = [("measured", "as measured", False)]
    if validations:
        boxes.append(("validated", f"validated ({validations[-1]['split']})", True))
    return "".join(
        f'<label><input type="checkbox" id="show-{kind}"{" checked" if on else ""}> '
        f"{html.escape(text)}</label>"
        for kind, text, on in boxes
    )


def _slider(report: FrontReport, place: int) -> str:
    """Return a slider over one objective's values on the front, at its loosest end."""
    values = [trial.user_attrs["denoised"][place] for trial in report.trials]
    low, high = min(values), max(values)
    best_is_high = report.directions[place] == "maximize"
    return (
        f"<label>{html.escape(report.metric_names[place])}: "
        f'<output id="shown-{place}" for="limit-{place}">no limit</output>'
        f'<input type="range" id="limit-{place}" min="{low}" max="{high}" '
        f'step="any" value="{low if best_is_high else high}"></label>\n'
    )


def _cards(
    report: FrontReport, study: optuna.Study, validations: Validations
) -> list[tuple[str, str]]:
    """Return the headline's facts: what fresh questions say first, where they were asked."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    facts = [(f"gain on fresh questions ({v['split']})", _gain(v)) for v in validations[-1:]]
    if len(report.metric_names) > 1:
        facts += _volumes(report, bool(validations))
    else:
        best = report.trials[0].user_attrs
        value = rounded(best["denoised"][0], best["denoised_errors"][0])
        facts.append((f"best {report.metric_names[0]}, trial {report.knee}", value))
    facts.append(("measured trials", str(states.count(TrialState.COMPLETE))))
    if states.count(TrialState.FAIL):
        facts.append(("failed trials", str(states.count(TrialState.FAIL))))
    return [(html.escape(key), value) for key, value in facts]


def _gain(content: dict[str, Any]) -> str:
    """Return the validated gain over the uniform merges with its interval."""
    uniform = content["hypervolume"]["uniform"]
    gain = content["hypervolume"]["front"] - uniform
    bounds = content["interval"]["difference"]
    if uniform <= 0:
        return f"{gain:.3g} [{bounds[0]:.3g}, {bounds[1]:.3g}]"
    low, high = (100 * bound / uniform for bound in bounds)
    return f"{100 * gain / uniform:+.0f} % [{low:+.0f}, {high:+.0f}]"


def _volumes(report: FrontReport, validated: bool) -> list[tuple[str, str]]:
    uniform = report.hypervolume_uniform
    gain = f"{100 * (report.hypervolume / uniform - 1):+.0f} %" if uniform > 0 else "none measured"
    pairs = zip(report.metric_names, report.reference_point, strict=True)
    reference = ", ".join(f"{name} {value:.3g}" for name, value in pairs)
    where = "gain on the search's own questions" if validated else "gain, not validated yet"
    return [
        (where, gain),
        ("hypervolume; uniform merges alone", f"{report.hypervolume:.3f}; {uniform:.3f}"),
        ("reference point", reference),
    ]


def _validation(content: dict[str, Any]) -> str:
    """Return what a validation found, as a paragraph."""
    front, uniform = (content["hypervolume"][name] for name in ("front", "uniform"))
    interval = content["interval"]
    shown = ", ".join(
        f"{title} {value:.3f} [{interval[name][0]:.3f}, {interval[name][1]:.3f}]"
        for title, name, value in (
            ("front", "front", front),
            ("uniform merges alone", "uniform", uniform),
            ("difference", "difference", front - uniform),
        )
    )
    survives = content["survives"]
    share = "" if survives is None else f" {100 * survives:.0f} % of the search's gain survives."
    members = [model for model in content["models"] if model["in_front"]]
    beyond = f"{sum(model['distinguishable'] for model in members)} of the front's {len(members)}"
    return (
        f"<p>On {content['n_questions']} questions of the split "
        f"<b>{html.escape(content['split'])}</b>, hypervolume with 95 % intervals: {shown}."
        f"{share} {beyond} models are beyond the uniform curve.</p>\n"
    )


def _footer(study: optuna.Study) -> str:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    tokens = sum(t.user_attrs.get("generated_tokens", 0) for t in study.get_trials(deepcopy=False))
    return f"Written {now} by MergeFront {__version__}; {tokens:,} tokens were generated."


def _table(report: FrontReport, validations: Validations) -> str:
    heads = ["trial", "role"]
    for name in report.metric_names:
        heads += [name, f"{name}, measured", *(f"{name}, {v['split']}" for v in validations)]
    if validations:
        heads.append("beyond the curve")
    columns = "".join(
        f'<th><button type="button" data-column="{place}">{html.escape(head)}</button></th>'
        for place, head in enumerate(heads)
    )
    rows = "".join(_row(report, index, validations) for index in range(len(report.trials)))
    return f'<table id="models"><thead><tr>{columns}</tr></thead><tbody>\n{rows}</tbody></table>\n'


def _row(report: FrontReport, index: int, validations: Validations) -> str:
    trial = report.trials[index]
    attributes, errors = trial.user_attrs, errors_of(trial)
    fresh = [{m["number"]: m for m in v["models"]}.get(trial.number) for v in validations]
    cells = [_cell(str(trial.number), trial.number), _cell(html.escape(role(trial)))]
    for place, name in enumerate(report.metric_names):
        pairs = [
            (attributes["denoised"][place], attributes["denoised_errors"][place]),
            (trial.values[place], errors[place]),
            *((m["values"][name], m["standard_errors"][name]) if m else None for m in fresh),
        ]
        cells += [_cell(rounded(*pair), pair[0]) if pair else _cell("") for pair in pairs]
    if validations:
        beyond = bool(fresh[-1] and fresh[-1]["distinguishable"])
        cells.append(_cell("yes" if beyond else "", int(beyond)))
    return f'<tr tabindex="0" data-n="{trial.number}">{"".join(cells)}</tr>\n'


def _cell(shown: str, value: float | None = None) -> str:
    """Return a cell; what it is sorted by stands beside what it shows."""
    return f'<td data-value="{shown if value is None else value}">{shown}</td>'
