"""The parts of the report's page as HTML: headline, controls, table and validations."""

import datetime
import html
import string
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import TrialState

from ...._version import __version__
from ....objectives.evaluation.diagnosis import SIGNS
from ..front import FrontReport
from ..front_table import errors_of, role, rounded, signs_of_trial
from .advice import gain_of

_LETTERS = string.ascii_lowercase + string.ascii_uppercase
# Counted: how little a share of few answers says is seen at once.
_SIGNS = {
    "truncation": "answers cut at the limit",
    **{sign: text.removeprefix("share of ") for sign, text in SIGNS.items()},
}
_VOLUMES = {
    "front": "front",
    "curve": "uniform curve",
    "uniform": "uniform merges alone",
    "gain": "front less curve",
    "difference": "front less uniform merges",
}
Validations = list[dict[str, Any]]


def lead(report: FrontReport) -> str:
    """Return what the page is about, in one line."""
    names = " against ".join(html.escape(name) for name in report.metric_names)
    return f"Layer-wise merges: {names}. Made by MergeFront {__version__}."


def warning(report: FrontReport) -> str:
    """Return what the study warns of, as a paragraph."""
    text = report.warning
    return f'<p class="note"><b>Warning:</b> {html.escape(text)}</p>\n' if text else ""


def key(validated: bool, several: bool) -> str:
    """Return the legend of the picture."""
    entries = [
        ("front", "●", "front" if several else "best"),
        ("other", "●", "other searched merges"),
        ("uniform", "■", "uniform merges"),
        ("parent", "▲", "parents"),
    ]
    if validated:
        entries.append(("validated", "◇", "validated on fresh questions"))
    if several:
        entries.append(("front", "○", "recommended, nobody measured it"))
    return " ".join(
        f'<span><b style="color: var(--{colour})">{mark}</b> {text}</span>'
        for colour, mark, text in entries
    )


def toggles(validations: Validations) -> str:
    """Return check boxes for the kinds of values that may be hidden."""
    boxes = [("measured", "as measured", False)]
    if validations:
        boxes.append(("validated", f"validated ({validations[-1]['split']})", True))
    return "".join(
        f'<label><input type="checkbox" id="show-{kind}"{" checked" if on else ""}> '
        f"{html.escape(text)}</label>"
        for kind, text, on in boxes
    )


def slider(report: FrontReport, place: int) -> str:
    """Return a slider over one objective's values on the front, at its loosest end."""
    values = [trial.user_attrs["denoised"][place] for trial in report.trials]
    low, high = min(values), max(values)
    best_is_high = report.directions[place] == "maximize"
    name = html.escape(report.metric_names[place])
    return (
        f'<label>{name}: <output id="shown-{place}" for="limit-{place}">no limit</output>'
        f'<input type="range" id="limit-{place}" aria-label="worst acceptable {name}" '
        f'min="{low}" max="{high}" '
        f'step="any" value="{low if best_is_high else high}"></label>\n'
    )


def cards(
    report: FrontReport, study: optuna.Study, validations: Validations
) -> list[tuple[str, str]]:
    """Return the headline's facts: what fresh questions say first, where they were asked."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    facts = [
        (f"gain over the uniform curve, fresh questions ({v['split']})", gain_of(report, v)[0])
        for v in validations[-1:]
    ]
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


def _volumes(report: FrontReport, validated: bool) -> list[tuple[str, str]]:
    baseline, curve = report.baseline, report.hypervolume_curve
    gain = (
        f"{100 * (report.hypervolume / baseline - 1):+z.0f} %" if baseline > 0 else "none measured"
    )
    beside = [] if curve is None else [("uniform curve", report.shown_curve)]
    beside.append(("uniform merges alone", f"{report.hypervolume_uniform:.3f}"))
    pairs = zip(report.metric_names, report.reference_point, strict=True)
    reference = ", ".join(f"{name} {value:.3g}" for name, value in pairs)
    where = (
        "gain on the search's own questions"
        if validated
        else "gain over the uniform curve, not validated"
    )
    return [
        (where, gain),
        ("hypervolume by the search's questions", report.shown_hypervolume),
        ("; ".join(name for name, _ in beside), "; ".join(v for _, v in beside)),
        ("reference point", reference),
    ]


def validation(content: dict[str, Any]) -> str:
    """Return what a validation found, as a paragraph."""
    interval = content["interval"]
    volumes = dict(content["hypervolume"])
    volumes["difference"] = volumes["front"] - volumes["uniform"]
    if "curve" in volumes:
        volumes["gain"] = volumes["front"] - volumes["curve"]
    shown = ", ".join(
        f"{title} {volumes[name]:.3f} [{interval[name][0]:.3f}, {interval[name][1]:.3f}]"
        for name, title in _VOLUMES.items()
        if name in volumes
    )
    survives = content["survives"]
    share = "" if survives is None else f" {100 * survives:.0f} % of the search's gain survives."
    return (
        f"<p>On {content['n_questions']} questions of the split "
        f"<b>{html.escape(content['split'])}</b>, hypervolume with 95 % intervals: {shown}."
        f"{share}</p>\n"
    )


def footer(study: optuna.Study) -> str:
    """Return when and by what the page was written."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    tokens = sum(t.user_attrs.get("generated_tokens", 0) for t in study.get_trials(deepcopy=False))
    return f"Written {now} by MergeFront {__version__}; {tokens:,} tokens were generated."


def table(report: FrontReport, validations: Validations) -> str:
    """Return the models of the front as a table that the script can sort."""
    kinds = ["believed", "measured", *(v["split"] for v in validations)]
    signs = _shown_signs(report)
    rest = [*(["beyond the curve"] if validations else []), *(["tied"] if report.tied else [])]
    rest += [sign.replace("_", " ") for sign in signs]
    named = [(kind, f"{name}, {kind}") for name in report.metric_names for kind in kinds]
    heads = [("trial", ""), ("role", ""), *named, *((head, "") for head in rest)]
    columns = "".join(_head(place, *head) for place, head in enumerate(heads))
    groups = "".join(
        f'<th scope="colgroup" colspan="{len(kinds)}">{html.escape(name)}</th>'
        for name in report.metric_names
    )
    above = f'<tr><td colspan="2"></td>{groups}{"<td></td>" * len(rest)}</tr>'
    rows = "".join(_row(report, index, validations, signs) for index in range(len(report.trials)))
    head = f"<thead>{above}<tr>{columns}</tr></thead>"
    return f'<table id="models">{head}<tbody>\n{rows}</tbody></table>\n'


def _head(place: int, shown: str, whole: str) -> str:
    """Return a heading that sorts; `whole` names it to who does not see what stands above."""
    label = f' aria-label="{html.escape(whole)}"' if whole else ""
    button = f'<button type="button" data-column="{place}"{label}>{html.escape(shown)}</button>'
    return f'<th scope="col">{button}</th>'


def table_notes(report: FrontReport) -> str:
    """Return what stands below the table: what its letters and its shares are."""
    shown = _shown_signs(report)
    notes = []
    if report.tied:
        notes.append(
            "Models that share a letter under <i>tied</i> cannot be told apart: no objective "
            "differs by more than the errors explain (95 %)."
        )
    notes += [f"<i>{html.escape(s.replace('_', ' '))}</i>: {_SIGNS[s]}." for s in shown]
    never = [sign.replace("_", " ") for sign in _SIGNS if sign not in shown]
    notes += [f"None of these models' answers shows {', '.join(never)}."] if never else []
    return f'<p class="note">{" ".join(notes)}</p>\n'


def _shown_signs(report: FrontReport) -> list[str]:
    """Return the signs of trouble that answers of the front's models show."""
    counts = [signs_of_trial(trial)[0] for trial in report.trials]
    return [sign for sign in _SIGNS if any(each[sign] for each in counts)]


def _row(report: FrontReport, index: int, validations: Validations, signs: Sequence[str]) -> str:
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
    if report.tied:
        letters = zip(_LETTERS, report.tied, strict=False)
        cells.append(_cell("".join(a for a, tied in letters if trial.number in tied), index))
    counts, n = signs_of_trial(trial)
    cells += [_cell(f"{counts[sign]} of {n}", counts[sign] / max(n, 1)) for sign in signs]
    return f'<tr tabindex="0" data-n="{trial.number}">{"".join(cells)}</tr>\n'


def _cell(shown: str, value: float | None = None) -> str:
    """Return a cell; what it is sorted by stands beside what it shows."""
    return f'<td data-value="{shown if value is None else value}">{shown}</td>'
