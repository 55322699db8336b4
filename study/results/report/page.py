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
from ..beside import check_writable, write_whole
from ..front import FrontReport, front_report
from ..validation_study import last_validation
from .advice import advice, headline
from .answers import answers_part
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
    content, images = render(report, study, spec, spec_path)
    images = {"front": _png(plot_front(report)), **images}
    out.mkdir(parents=True, exist_ok=True)
    for name, data in images.items():
        write_whole(out / f"{name}.png", data)
    page = out / "report.html"
    write_whole(page, content.encode())
    return [page, *(out / f"{name}.png" for name in images)]


def render(
    report: FrontReport, study: optuna.Study, spec: StudySpec, spec_path: str, above: str = ""
) -> tuple[str, dict[str, bytes]]:
    """Return the page, and the pictures in it as PNG by their names.

    Args:
        report: Of the study.
        study: With measured trials.
        spec: Of the study.
        spec_path: The study's file, as it is named in the page's commands.
        above: HTML that stands above all of it. Defaults to "": nothing.

    Raises:
        StudyError: If no trial keeps to the constraints.
    """
    report.check_models()
    pictures = _pictures(report, study)
    images = {picture.name: _png(picture.figure) for picture in pictures}
    validations = [v for split in SPLITS if (v := last_validation(study, split)) is not None]
    quoted = shlex.quote(spec_path)
    parts = _page(report, study, validations, quoted) | {
        "above": above,
        "figures": "".join(_figure(picture, images[picture.name]) for picture in pictures),
        "answers": answers_part(report, study, spec, f"mergefront answers {quoted}"),
    }
    return Template(_text("report.html.template")).substitute(parts), images


_SEARCHED = (
    "The hypervolume (area between front and reference point) that the search had covered after "
    "each trial, by what is believed of the trials today: early steps are seen with later "
    "knowledge."
)
_SEARCHED_ONE = "The best value after each trial, by what is believed of the trials today."


def _pictures(report: FrontReport, study: optuna.Study) -> list[Picture]:
    """Return what the page shows as images; the front it draws itself."""
    return [
        Picture(
            "hypervolume",
            "Search",
            _SEARCHED if len(report.metric_names) > 1 else _SEARCHED_ONE,
            plot_hypervolume(report, study),
        ),
        Picture(
            "importance",
            "Layers",
            "Prior importance: how far fine-tuning moved each layer. Relevance: how quickly each "
            "objective bends with the layer's weight, as learned from the trials (inverse "
            "lengthscales, relative to the largest). A layer with high relevance needs its own "
            "weight; a layer with low relevance may still have a large, even effect.",
            plot_importance(report, importance_of(study)),
        ),
        Picture(
            "weights",
            "Weights of the models above",
            "One row per model, one column per layer, in the order of the model: a row of one "
            "colour is a uniform merge.",
            plot_weights(report),
        ),
    ]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _page(
    report: FrontReport, study: optuna.Study, validations: Validations, spec_path: str
) -> dict[str, str]:
    """Return what the page's template is filled with, but pictures and answers."""
    several = len(report.metric_names) > 1
    facts = cards(report, study, validations)
    return {
        "title": html.escape(report.study),
        "lead": lead(report),
        "headline": headline(report, validations, f"mergefront validate {spec_path}"),
        "warning": warning(report),
        "cards": "".join(
            f"<div><b>{html.escape(v)}</b><span>{k}</span></div>\n" for k, v in facts
        ),
        "heading": "Pareto front" if several else "Models",
        "key": key(bool(validations), several),
        "parallel": _PARALLEL if len(report.metric_names) > 2 else "",
        "toggles": toggles(validations),
        "sliders": "".join(slider(report, place) for place in range(len(report.metric_names))),
        "table_title": "Models on the front" if several else "Best model",
        "table": table(report, validations),
        "signs": table_notes(report),
        "validations": "".join(validation(content) for content in validations),
        "advice": advice(report, validations, spec_path),
        "footer": footer(study),
        "style": _text("report.css"),
        "script": _text("report.js"),
        "data": as_script(page_data(report, validations, spec_path)),
    }


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _figure(picture: Picture, data: bytes) -> str:
    encoded = base64.b64encode(data).decode()
    title, caption = html.escape(picture.title), html.escape(picture.caption)
    return (
        f"<section><h2>{title}</h2><figure>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
        f'<img alt="{caption}" src="data:image/png;base64,{encoded}"></div>'
        f"<figcaption>{caption}</figcaption></figure></section>\n"
    )
