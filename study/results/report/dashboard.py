"""The report's page of a running study; behind it optuna-dashboard with our note and pictures.

The server reads through Optuna's cache: unlike the stock command it does not load every trial
again at each of a browser's polls. It is also the one writer of the note and the pictures, which
lie in the study's attributes, so that a stock dashboard on the same database shows them too.
"""

import html
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import yaml
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from sqlalchemy.exc import SQLAlchemyError

from ....errors import MergefrontError, MissingExtraError, StudyError
from ....samplers import MEASURED
from ...seeding import SPEC, importance_of
from ...spec.study_spec import StudySpec
from ...storage.connection import artifact_store, load_study, study_lock
from ...storage.outages import reason_of
from ..front import FrontReport, front_report
from .live import LivePage

logger = logging.getLogger(__name__)

_DRAWN = "mergefront:drawn_after"


@dataclass(frozen=True)
class Address:
    """Where the dashboard listens.

    Args:
        host: Address to listen on; the dashboard has no password.
        port: To listen on.
        allowed: Further names under which it may be asked.
    """

    host: str
    port: int
    allowed: Collection[str] = ()


def serve(
    spec: StudySpec,
    spec_path: str,
    address: Address,
    refresh_seconds: float,
    announce: Callable[[str], None] = logger.info,
) -> None:
    """Serve the report's page, and optuna-dashboard behind it, until the process is stopped.

    Args:
        spec: Of an existing study.
        spec_path: The study's file, as it is named in the page's commands.
        address: Where.
        refresh_seconds: Between two looks for new trials to draw.
        announce: Told the address once it listens.

    Raises:
        MissingExtraError: If optuna-dashboard is not installed.
        StudyError: If the study does not exist, or the port is taken.
    """
    wsgi = _wsgi()
    study, page = load_study(spec), LivePage(spec, spec_path)
    behind = page.in_front_of(wsgi(_storage(study), artifact_store(spec)))
    application = only_for(behind, {address.host, *address.allowed})
    with _listen(address.host, address.port, application) as server:
        painter = threading.Thread(
            target=_paint_for_ever, args=(spec, page, refresh_seconds), daemon=True
        )
        painter.start()
        # There is nothing to bring in order, and an exception may get lost.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address.host, address.host)
        announce(f"http://{shown}:{address.port}")
        server.serve_forever()


def only_for(application: Callable[..., Any], allowed: Collection[str]) -> Callable[..., Any]:
    """Answer only browsers that ask for this machine by an address or a name of its own.

    A web page may let its own name point to 127.0.0.1 and then read, and delete, what is served
    there; its browser still sends that name as `Host`.

    Args:
        application: WSGI.
        allowed: Further names.
    """
    names = {"localhost", socket.gethostname(), socket.getfqdn(), *allowed}
    known = {name.lower() for name in names}

    def checked(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        name = _name_in(environ.get("HTTP_HOST", "localhost"))
        if name in known or _is_address(name):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"Not served under the name {name!r}; see --allow-host.\n".encode()]

    return checked


def _name_in(host: str) -> str:
    """Return the name in a `Host` header, without its port; all of a header that is malformed."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _wsgi() -> Callable[..., Any]:
    try:
        from optuna_dashboard import wsgi
    except ImportError as error:
        raise MissingExtraError(
            "The dashboard needs optuna-dashboard; run `pip install 'mergefront[dashboard]'`."
        ) from error
    application: Callable[..., Any] = wsgi
    return application


class _Server(ThreadingMixIn, WSGIServer):
    # A thread per request: a slow browser holds up nobody, and SIGTERM and Ctrl-C, which Python
    # raises in the main thread, are not swallowed by wsgiref's `except:` around an answer.
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        logger.debug(format, *args)


def _listen(host: str, port: int, application: Callable[..., Any]) -> WSGIServer:
    try:
        return make_server(host, port, application, _Server6 if ":" in host else _Server, _Quiet)
    except OSError as error:
        raise StudyError(
            f"The dashboard cannot listen on {host}:{port} ({error.strerror}). Choose another "
            "`--port`."
        ) from error


def _paint_for_ever(spec: StudySpec, page: LivePage, seconds: float) -> None:
    pause = threading.Event()
    study: optuna.Study | None = None  # of its own: the server's storage belongs to other threads
    while True:
        try:
            study = study or load_study(spec)
            paint(study, spec, page.draw(study))
        except (SQLAlchemyError, StorageInternalError, MergefrontError) as error:
            logger.warning("the pictures were not drawn: %s", reason_of(error))
        except Exception:  # whatever happens, the next look may succeed
            logger.warning("the pictures were not drawn", exc_info=True)
        pause.wait(seconds)


def paint(study: optuna.Study, spec: StudySpec, report: FrontReport | None = None) -> bool:
    """Write the note and the pictures, unless they show every measured trial already.

    Args:
        study: Whose attributes are written.
        spec: Of the study.
        report: Of the study. Defaults to None: it is computed if there is something to write.

    Returns:
        Whether there was something to write.
    """
    from optuna_dashboard import save_note, save_plotly_graph_object

    from .plotly_figures import graphs

    complete = study.get_trials(deepcopy=False, states=MEASURED)
    if _drawn(study) == len(complete):
        return False
    figures = {}
    if complete:
        figures = graphs(report or front_report(study, spec), study, importance_of(study))
    with study_lock(spec).hold():
        if _drawn(study) is None:
            save_note(study, study_note(study))
        for name, figure in figures.items():
            save_plotly_graph_object(study, figure, graph_object_id=name)
        _storage(study).set_study_system_attr(study._study_id, _DRAWN, len(complete))
    return True


def _drawn(study: optuna.Study) -> int | None:
    drawn: int | None = _storage(study).get_study_system_attrs(study._study_id).get(_DRAWN)
    return drawn


def _storage(study: optuna.Study) -> BaseStorage:
    # Studies have no public way to keep what is not the user's; optuna-dashboard does the same.
    return study._storage


def study_note(study: optuna.Study) -> str:
    """Return the study in Markdown: models, spec, how to resume and how to read it.

    Texts of the spec stand in it as code: readers of Markdown may run HTML, but not in code.
    """
    spec = study.user_attrs[SPEC]
    models = spec["models"]
    experts = "\n".join(f"- expert (weight 1): {_as_code(name)}" for name in models["experts"])
    written = yaml.safe_dump(spec, sort_keys=False).strip()
    fence = _longer_than_any("`", written)
    return f"""# {html.escape(study.study_name)}

Layer-wise merges of

- base (weight 0): {_as_code(models["base"])}
{experts}

Front, hypervolume and layers on the study's first page show *denoised* values (posterior means of
the surrogate with the trials' own standard errors); the other plots show what was measured.

Resume, or add workers, at any time:

    mergefront worker SPEC.yaml

Parents and uniform merges have the user attribute `phase` = `parent` or `uniform`. Each trial's
weights (`recipe.json`, for `mergefront merge --weights`) and answers are its artifacts.

{fence}yaml
{written}
{fence}
"""


def _as_code(text: str) -> str:
    """Return a text as code within a line, whatever is in it."""
    fence = _longer_than_any("`", text, shortest=1)
    line = " ".join(text.splitlines())
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def _longer_than_any(mark: str, text: str, shortest: int = 3) -> str:
    """Return more of a mark in a row than a text has anywhere."""
    n = shortest
    while mark * n in text:
        n += 1
    return mark * n
