"""A study as pictures and one self-contained, interactive page: no server, no network."""

import base64
import html
import io
import shlex
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import optuna
from matplotlib.figure import Figure

from ....objectives.evaluation import SPLITS
from ...seeding import importance_of
from ...spec.study_spec import StudySpec
from ..beside import check_writable
from ..front import FrontReport, front_report
from ..validation_study import last_validation
from .figures import plot_hypervolume, plot_importance, plot_weights
from .front_figures import plot_front
from .page_data import as_script, page_data
from .page_parts import (
    Validations,
    cards,
    footer,
    key,
    lead,
    slider,
    table,
    table_notes,
    toggles,
    validation,
    warning,
)

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
    images = {"front": _png(plot_front(report))}
    images |= {picture.name: _png(picture.figure) for picture in pictures}
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
    facts = cards(report, study, validations)
    return Template(_text("report.html.template")).substitute(
        title=html.escape(report.study),
        lead=lead(report),
        warning=warning(report),
        cards="".join(f"<div><b>{html.escape(v)}</b><span>{k}</span></div>\n" for k, v in facts),
        heading="Pareto front" if several else "Models",
        key=key(bool(validations), several),
        parallel=_PARALLEL if len(report.metric_names) > 2 else "",
        toggles=toggles(validations),
        sliders="".join(slider(report, place) for place in range(len(report.metric_names))),
        table_title="Models on the front" if several else "Best model",
        table=table(report, validations),
        signs=table_notes(report),
        validations="".join(validation(content) for content in validations),
        figures=figures,
        footer=footer(study),
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
