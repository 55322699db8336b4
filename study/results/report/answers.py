"""What models of the front answered, side by side: a part of the report's page."""

import html
from collections.abc import Mapping
from typing import Any

import optuna

from ....errors import StudyError
from ...spec.study_spec import StudySpec
from ...storage.artifacts import agreed, compared, read_answers
from ...storage.connection import artifact_store
from ..front import FrontReport
from ..front_table import role

# Questions on the page, and how many of them at most the models agree on.
_N_QUESTIONS, _N_AGREED = 10, 4
# Characters of a text on the page.
_LONGEST = 1500
_VERDICTS = {1.0: "✓ right", 0.0: "✗ wrong"}


def answers_part(report: FrontReport, study: optuna.Study, spec: StudySpec, command: str) -> str:
    """Return answers of a few models of the front side by side, as HTML.

    Args:
        report: Of the study.
        study: Whose artifacts are read.
        spec: Of the study.
        command: That shows all answers of these trials.
    """
    numbers = _shown(report)
    store = artifact_store(spec)
    try:
        rows = compared({number: read_answers(study, store, number) for number in numbers})
    except StudyError as error:  # written by workers of other machines
        return f'<p class="note">{html.escape(str(error))}</p>\n'
    asked = [row for row in rows if row["reference"] and len(row["answers"]) == len(numbers)]
    differing = [row for row in asked if not agreed(row)]
    same = [row for row in asked if agreed(row)][:_N_AGREED]
    sample = [*differing[: _N_QUESTIONS - len(same)], *same]
    if not sample:
        return '<p class="note">No question with a reference was answered by all of them.</p>\n'
    titles = {str(t.number): _title(t.number, role(t)) for t in report.denoised.trials}
    first = (
        f", first some of the {len(differing)} on which their scores differ" if differing else ""
    )
    note = (
        f"{len(sample)} of {len(asked)} questions of the search{first}. All of them: "
        f"<code>{html.escape(command)} --trials {' '.join(map(str, numbers))}</code>"
    )
    return f'<p class="note">{note}</p>\n{"".join(_article(row, titles) for row in sample)}'


def _shown(report: FrontReport) -> list[int]:
    """Return both ends of the front and its knee; a front of one model stands by its parents."""
    ends = {report.trials[0].number, report.trials[-1].number, report.knee}
    numbers = [trial.number for trial in report.trials if trial.number in ends]
    if len(numbers) == 1:
        everything = report.denoised.trials
        parents = [t.number for t in everything if t.user_attrs.get("phase") == "parent"]
        numbers += [number for number in parents if number not in ends]
    return numbers


def _title(number: int, title: str) -> str:
    return f"trial {number}" + (f", {title}" if title and title != "search" else "")


def _article(row: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    given = "".join(
        _answer(titles[number], answer)
        for number, answers in row["answers"].items()
        for answer in answers[:1]
    )
    return (
        f'<article class="asked"><h3>{_text(row["question"])}</h3>'
        f"<p>reference: <b>{_text(row['reference'])}</b></p>"
        f'<div class="given">{given}</div></article>\n'
    )


def _answer(title: str, answer: Mapping[str, Any]) -> str:
    verdict = _VERDICTS.get(answer["score"], f"score {answer['score']:.2g}")
    cut = ", cut at the limit" if answer["finish_reason"] == "length" else ""
    return (
        f"<div><b>{html.escape(title)}</b> <span>{verdict}, {answer['n_tokens']} tokens{cut}"
        f"</span><p>{_text(answer['text'])}</p></div>"
    )


def _text(text: str | None) -> str:
    """Return a text for the page, its middle left out where it is long."""
    told, half = (text or "").strip(), _LONGEST // 2
    if len(told) > _LONGEST:
        told = f"{told[:half]} [...] {told[-half:]}"
    return html.escape(told)
