"""optuna-dashboard with our study note and pictures.

The server reads through Optuna's cache: unlike the stock command it does not load every trial
again at each of a browser's polls. It is also the one writer of the note and the pictures, which
lie in the study's attributes, so that a stock dashboard on the same database shows them too.
"""

import logging
import socket
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
import yaml
from optuna.storages import BaseStorage
from sqlalchemy.exc import SQLAlchemyError

from ....errors import MissingExtraError, StudyError
from ....samplers import MEASURED
from ...seeding import SPEC, importance_of
from ...spec.study_spec import StudySpec
from ...storage.connection import artifact_store, load_study, study_lock
from ..front import front_report

logger = logging.getLogger(__name__)

_DRAWN = "mergefront:drawn_after"


def serve(spec: StudySpec, host: str, port: int, refresh_seconds: float) -> None:
    """Serve the dashboard until the process is stopped.

    Args:
        spec: Of an existing study.
        host: Address to listen on; the dashboard has no password.
        port: To listen on.
        refresh_seconds: Between two looks for new trials to draw.

    Raises:
        MissingExtraError: If optuna-dashboard is not installed.
        StudyError: If the study does not exist, or the port is taken.
    """
    wsgi = _wsgi()
    study = load_study(spec)
    with _listen(host, port, wsgi(_storage(study), artifact_store(spec))) as server:
        painter = threading.Thread(
            target=_paint_for_ever, args=(spec, refresh_seconds), daemon=True
        )
        painter.start()
        server.serve_forever()


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


def _paint_for_ever(spec: StudySpec, seconds: float) -> None:
    pause = threading.Event()
    study = load_study(spec)  # of its own: the server's storage belongs to other threads
    while True:
        try:
            paint(study, spec)
        except SQLAlchemyError as error:
            logger.warning("the pictures were not drawn: %s", error)
        pause.wait(seconds)


def paint(study: optuna.Study, spec: StudySpec) -> bool:
    """Write the note and the pictures, unless they show every measured trial already.

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
        figures = graphs(front_report(study, spec), study, importance_of(study))
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
    """Return the study in Markdown: models, spec, how to resume and how to read it."""
    spec = study.user_attrs[SPEC]
    models = spec["models"]
    experts = "\n".join(f"- expert (weight 1): `{expert}`" for expert in models["experts"])
    return f"""# {study.study_name}

Layer-wise merges of

- base (weight 0): `{models["base"]}`
{experts}

Front, hypervolume and layers on the study's first page show *denoised* values (posterior means of
the surrogate with the trials' own standard errors); the other plots show what was measured.

Resume, or add workers, at any time:

    mergefront worker SPEC.yaml

Parents and uniform merges have the user attribute `phase` = `parent` or `uniform`. Each trial's
weights (`recipe.json`, for `mergefront merge --weights`) and answers are its artifacts.

```yaml
{yaml.safe_dump(spec, sort_keys=False).strip()}
```
"""
