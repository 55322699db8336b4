"""What the report's page advises: the headline, the verdict on layers, and what to take."""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ....samplers import Recommendation
from ..front import FrontReport
from ..front_table import rounded, thin_curve
from ..recommendations import full_label, spread_out, which_model

Validations = Sequence[Mapping[str, Any]]


def headline(report: FrontReport, validations: Validations, command: str) -> str:
    """Return what was found, as two sentences: the gain, and whether layers are worth it.

    Args:
        report: Of the study.
        validations: Of its front; the newest counts.
        command: That validates.
    """
    told = _validated(report, validations[-1]) if validations else _unvalidated(command)
    thin = thin_curve(report.denoised.trials)
    verdict = _verdict(report, validations) + (f" But {thin}" if thin else "")
    return f'<p class="headline">{told}</p>\n<p id="verdict">{verdict}</p>\n'


def _verdict(report: FrontReport, validations: Validations) -> str:
    """Return what layers of their own bring, by the search, and by fresh questions."""
    if report.layerwise is None:
        return ""
    searched = re.sub(r"`(.*?)`", r"<code>\1</code>", html.escape(report.layerwise.sentence()))
    told = f"By the search alone: {searched}."
    if validations:
        members = [model for model in validations[-1]["models"] if model["in_front"]]
        beyond = sum(bool(model["distinguishable"]) for model in members)
        told += (
            f" On the fresh questions {beyond} of the front's {len(members)} models are clearly "
            "beyond the uniform curve."
        )
    return told


def _unvalidated(command: str) -> str:
    return (
        "Not validated yet: the search's own questions flatter its front. "
        f"<code>{html.escape(command)}</code> asks fresh ones."
    )


def _validated(report: FrontReport, content: Mapping[str, Any]) -> str:
    asked = f"{content['n_questions']} fresh questions ({html.escape(content['split'])})"
    gain, low, high = gain_of(report, content)
    told = "" if low > 0 or high < 0 else " This may be nothing: the interval holds zero."
    if len(report.metric_names) == 1:
        best = f"the best model's {html.escape(report.metric_names[0])} differs by <b>{gain}</b>"
        return f"On {asked} {best} from the best uniform merge's (95 % interval).{told}"
    return (
        f"On {asked} the front's hypervolume is <b>{gain}</b> against that of the uniform "
        f"{'curve' if 'curve' in content['hypervolume'] else 'merges'} (95 % interval).{told}"
    )


def gain_of(report: FrontReport, content: Mapping[str, Any]) -> tuple[str, float, float]:
    """Return a validated gain over the uniform curve as a text, and its 95 % interval.

    In per cent of the curve's hypervolume; for one objective in its unit. Validations of older
    versions know the uniform merges alone, and one objective has no more than the best of them.
    """
    curve = "curve" in content["hypervolume"] and len(report.metric_names) > 1
    uniform = content["hypervolume"]["curve" if curve else "uniform"]
    gain = content["hypervolume"]["front"] - uniform
    low, high = content["interval"]["gain" if curve else "difference"]
    if len(report.metric_names) == 1:
        flip = 1 if report.directions[0] == "maximize" else -1
        gain, low, high = flip * gain, *sorted((flip * low, flip * high))
        return f"{gain:+z.3f} [{low:+z.3f}, {high:+z.3f}]", low, high
    if uniform <= 0:
        return f"{gain:.3g} [{low:.3g}, {high:.3g}]", low, high
    low, high = 100 * low / uniform, 100 * high / uniform
    return f"{100 * gain / uniform:+z.0f} % [{low:+z.0f}, {high:+z.0f}]", low, high


def advice(report: FrontReport, validations: Validations, spec: str) -> str:
    """Return what to take for each of a few preferences, as a table.

    Args:
        report: Of the study.
        validations: In which recommended models may have been measured.
        spec: Path of the study's file, for commands.
    """
    chosen = spread_out(report.recommended)
    if not chosen:
        return '<p class="note">None: the trials share no parameter.</p>\n'
    fresh = {m["label"]: m for v in validations for m in v.get("recommended", ())}
    seen = any(full_label(one) in fresh and one.number is None for one in chosen)
    split = html.escape(validations[-1]["split"]) if seen else ""
    names = report.metric_names
    heads = [f"weight of {names[0]}"] if len(names) == 2 else ["weights"] * (len(names) > 2)
    for name in names:
        heads += [f"{name}, predicted", *([f"{name}, {split}"] if seen else [])]
    heads.append("model")
    rows = [_cells(one, report, fresh if seen else None) for one in chosen]
    example = ",".join(f"{w:.2f}" for w in chosen[len(chosen) // 2].preference)
    commands = (
        f"<code>mergefront export {html.escape(spec)} --preference {example} --out merged</code> "
        f"saves one, <code>mergefront pick {html.escape(spec)} --recommend</code> measures one."
    )
    return f'{_table(heads, rows)}<p class="note">{commands}</p>\n'


def _cells(
    one: Recommendation, report: FrontReport, fresh: Mapping[str, Mapping[str, Any]] | None
) -> list[str]:
    names = report.metric_names
    shown = "/".join(f"{w:.2f}" for w in one.preference[: 1 if len(names) == 2 else None])
    found = fresh.get(full_label(one)) if fresh and one.number is None else None
    if found and found["params"] != one.params:  # of an earlier state of the study
        found = None
    cells = [shown] if len(names) > 1 else []
    for place, name in enumerate(names):
        cells.append(rounded(one.values[place], one.fresh_deviations[place]))
        if fresh is not None:
            pair = (found["values"][name], found["standard_errors"][name]) if found else None
            cells.append(rounded(*pair) if pair else "")
    return [*cells, which_model(one, report.denoised.trials)]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows
    )
    return f'<table class="taken"><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>\n'


def predicted(report: FrontReport) -> list[dict[str, Any]]:
    """Return recommended models that nobody measured, as data for the picture."""
    return [
        {"html": full_label(one), "values": one.values, "errors": one.fresh_deviations}
        for one in spread_out(report.recommended)
        if one.number is None
    ]
