"""A study as pictures and one self-contained page."""

import base64
import html
import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState

from ....objectives.evaluation import SPLITS
from ...seeding import importance_of
from ...spec.study_spec import StudySpec
from ..beside import check_writable
from ..front import FrontReport, front_report
from ..validation_study import last_validation
from .figures import plot_front, plot_hypervolume, plot_importance, plot_weights

Validations = list[dict[str, Any]]


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


def write_report(study: optuna.Study, spec: StudySpec, out: Path) -> list[Path]:
    """Write the PNG files and `report.html`; return what was written, the page first.

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
    for name, data in images.items():
        (out / f"{name}.png").write_bytes(data)
    page = out / "report.html"
    validations = [v for split in SPLITS if (v := last_validation(study, split)) is not None]
    page.write_text(_page(report, study, pictures, images, validations), encoding="utf-8")
    return [page, *(out / f"{name}.png" for name in images)]


def _pictures(report: FrontReport, study: optuna.Study) -> list[Picture]:
    return [
        Picture(
            "front",
            "Front",
            "What each model is believed to be, not what it was lucky to measure: posterior "
            "means and standard deviations of the surrogate.",
            plot_front(report),
        ),
        Picture(
            "hypervolume",
            "Search",
            "How much of the objective space the search had covered after each trial.",
            plot_hypervolume(report, study),
        ),
        Picture(
            "importance",
            "Layers",
            "How far fine-tuning moved each variable's tensors (prior), and how quickly each "
            "objective changes with its weight (learned).",
            plot_importance(report, importance_of(study)),
        ),
        Picture(
            "weights", "Weights of the front's models", "One row a model.", plot_weights(report)
        ),
    ]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _page(
    report: FrontReport,
    study: optuna.Study,
    pictures: list[Picture],
    images: dict[str, bytes],
    validations: Validations,
) -> str:
    template = resources.files(__package__).joinpath("report.html.template")
    figures = "".join(_figure(picture, images[picture.name]) for picture in pictures)
    return Template(template.read_text(encoding="utf-8")).substitute(
        title=html.escape(report.study),
        cards="".join(_cards(report, study)),
        figures=figures,
        table=_table(report, validations),
        validations="".join(_validation(content) for content in validations),
        knee=report.knee,
    )


def _figure(picture: Picture, data: bytes) -> str:
    encoded = base64.b64encode(data).decode()
    return (
        f"<section><h2>{html.escape(picture.title)}</h2><figure>"
        f'<img alt="{html.escape(picture.title)}" src="data:image/png;base64,{encoded}">'
        f"<figcaption>{html.escape(picture.caption)}</figcaption></figure></section>\n"
    )


def _cards(report: FrontReport, study: optuna.Study) -> list[str]:
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    uniform = report.hypervolume_uniform
    gain = f"{100 * (report.hypervolume / uniform - 1):+.1f} %" if uniform > 0 else "none measured"
    reference = ", ".join(
        f"{name} {value:.3g}"
        for name, value in zip(report.metric_names, report.reference_point, strict=True)
    )
    facts = {
        "COMPLETE trials": states.count(TrialState.COMPLETE),
        "failed trials": states.count(TrialState.FAIL),
        "hypervolume": f"{report.hypervolume:.3f}",
        "uniform merges alone": f"{uniform:.3f}",
        "gain": gain,
        "reference point": reference,
    }
    return [f"<div><b>{html.escape(str(v))}</b><span>{k}</span></div>\n" for k, v in facts.items()]


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


def _table(report: FrontReport, validations: Validations) -> str:
    splits = "".join(f"<th>{html.escape(content['split'])}</th>" for content in validations)
    columns = "".join(
        f"<th>{html.escape(name)}</th><th>search</th>{splits}" for name in report.metric_names
    )
    rows = "".join(_row(report, index, validations) for index in range(len(report.trials)))
    return f"<table><thead><tr><th>trial</th><th>phase</th>{columns}</tr></thead>{rows}</table>"


def _row(report: FrontReport, index: int, validations: Validations) -> str:
    trial = report.trials[index]
    attributes = trial.user_attrs
    errors = attributes.get("standard_errors") or [float("nan")] * len(trial.values)
    fresh = [_fresh(content, trial.number, report.metric_names) for content in validations]
    columns = zip(*fresh, strict=True) if fresh else [()] * len(trial.values)
    cells = "".join(
        f"<td>{d:.3f} ± {s:.3f}</td><td>{v:.3f} ± {e:.3f}</td>{''.join(validated)}"
        for d, s, v, e, validated in zip(
            attributes["denoised"],
            attributes["denoised_errors"],
            trial.values,
            errors,
            columns,
            strict=True,
        )
    )
    phase = html.escape(str(attributes.get("label") or attributes.get("phase", "")))
    mark = ' class="knee"' if trial.number == report.knee else ""
    return f"<tr{mark}><td>{trial.number}</td><td>{phase}</td>{cells}</tr>\n"


def _fresh(content: dict[str, Any], number: int, names: list[str]) -> list[str]:
    """Return a trial's cells of one validation, one an objective; empty if it was not asked."""
    for model in content["models"]:
        if model["number"] == number:
            pairs = ((model["values"][name], model["standard_errors"][name]) for name in names)
            return [f"<td>{value:.3f} ± {error:.3f}</td>" for value, error in pairs]
    return ["<td></td>"] * len(names)
