"""A study as pictures and one self-contained page."""

import base64
import html
import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template

import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState

from .front import FrontReport, front_report
from .plots import plot_front, plot_hypervolume, plot_importance, plot_weights
from .seeding import importance_of
from .spec import StudySpec


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
        StudyError: If no trial is COMPLETE yet.
    """
    report = front_report(study, spec)
    out.mkdir(parents=True, exist_ok=True)
    pictures = _pictures(report, study)
    images = {picture.name: _png(picture.figure) for picture in pictures}
    for name, data in images.items():
        (out / f"{name}.png").write_bytes(data)
    page = out / "report.html"
    page.write_text(_page(report, study, pictures, images), encoding="utf-8")
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
    report: FrontReport, study: optuna.Study, pictures: list[Picture], images: dict[str, bytes]
) -> str:
    template = resources.files("mergefront.study").joinpath("report.html.template")
    figures = "".join(_figure(picture, images[picture.name]) for picture in pictures)
    return Template(template.read_text(encoding="utf-8")).substitute(
        title=html.escape(report.study),
        cards="".join(_cards(report, study)),
        figures=figures,
        table=_table(report),
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


def _table(report: FrontReport) -> str:
    columns = "".join(
        f"<th>{html.escape(name)}</th><th>measured</th>" for name in report.metric_names
    )
    rows = "".join(_row(report, index) for index in range(len(report.trials)))
    return f"<table><thead><tr><th>trial</th><th>phase</th>{columns}</tr></thead>{rows}</table>"


def _row(report: FrontReport, index: int) -> str:
    trial = report.trials[index]
    attributes = trial.user_attrs
    errors = attributes.get("standard_errors") or [float("nan")] * len(trial.values)
    cells = "".join(
        f"<td>{d:.3f} ± {s:.3f}</td><td>{v:.3f} ± {e:.3f}</td>"
        for d, s, v, e in zip(
            attributes["denoised"],
            attributes["denoised_errors"],
            trial.values,
            errors,
            strict=True,
        )
    )
    phase = html.escape(str(attributes.get("label") or attributes.get("phase", "")))
    mark = ' class="knee"' if trial.number == report.knee else ""
    return f"<tr{mark}><td>{trial.number}</td><td>{phase}</td>{cells}</tr>\n"
