"""The report's page of a study that may still be running: what the dashboard shows first."""

import html
import logging
import threading
from collections.abc import Callable
from typing import Any

import optuna

from ....errors import StudyError
from ....objectives.evaluation import SPLITS
from ....samplers import MEASURED
from ...spec.study_spec import StudySpec
from ..front import FrontReport, front_report
from ..validation_study import last_validation
from .page import render

logger = logging.getLogger(__name__)

# Nothing is loaded from elsewhere, and no other page may frame what can be pressed here.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'none'"
)
_HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", _POLICY),
]


class LivePage:
    """The page of a study, drawn again when something was measured or validated.

    Args:
        spec: Of the study.
        spec_path: The study's file, as it is named in the page's commands.
    """

    def __init__(self, spec: StudySpec, spec_path: str) -> None:
        self._spec, self._spec_path = spec, spec_path
        self._drawn: object = None
        self._lock = threading.Lock()
        self._page = _waiting(spec.study.name, "dashboard", "No trial is measured yet.")

    def draw(self, study: optuna.Study) -> FrontReport | None:
        """Draw what the study holds now; return the front if there was something new."""
        state = self._state(study)
        if state == self._drawn:
            return None
        place = f"dashboard/studies/{study._study_id}"
        report: FrontReport | None = None
        try:
            report = front_report(study, self._spec)
            page, _ = render(report, study, self._spec, self._spec_path, _above(place))
        except StudyError as error:
            page = _waiting(study.study_name, place, str(error))
        with self._lock:
            self._page = page
        self._drawn = state
        return report

    def _state(self, study: optuna.Study) -> object:
        """Return what the page depends on: trials, and validations."""
        measured = len(study.get_trials(deepcopy=False, states=MEASURED))
        return measured, [last_validation(study, split) for split in SPLITS]

    def in_front_of(self, application: Callable[..., Any]) -> Callable[..., Any]:
        """Return a WSGI application whose first page is this one."""

        def answered(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            if environ.get("PATH_INFO", "/") not in ("", "/"):
                return application(environ, start_response)
            with self._lock:
                content = self._page.encode()
            start_response("200 OK", [*_HEADERS, ("Content-Length", str(len(content)))])
            return [] if environ.get("REQUEST_METHOD") == "HEAD" else [content]

        return answered


def _above(place: str) -> str:
    return (
        f'<p class="note">Drawn anew as trials are measured: load the page again. '
        f'<a href="{place}">Trials, parameters and files in optuna-dashboard</a>; its own plots '
        "show values as they were measured, lucky ones included.</p>\n"
    )


def _waiting(study: str, place: str, reason: str) -> str:
    name = html.escape(study)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" '
        f'content="5"><title>{name}</title><h1>{name}</h1><p>{html.escape(reason)}</p>'
        f'<p><a href="{place}">optuna-dashboard</a></p></html>\n'
    )
