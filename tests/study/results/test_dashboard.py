"""What optuna-dashboard shows of a study: served, and asked over HTTP."""

import socket
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from optuna_dashboard import get_note

from dashboards import get, served, wait_for_graphs
from mergefront.study import StudySpec
from mergefront.study.results.report.dashboard import (
    _drawn,
    _paint_for_ever,
    only_for,
    paint,
    study_note,
)
from mergefront.study.results.report.live import LivePage
from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from mergefront.study.storage.outages import through_outages
from postgres import serve
from small_study import write_spec


def test_the_dashboard_shows_names_note_graphs_attributes_and_artifacts(finished: Path) -> None:
    with served(finished) as url:
        study = wait_for_graphs(url)
        trial = study["trials"][-1]
        files = {artifact["filename"]: artifact for artifact in trial["artifacts"]}
        recipe = files[f"trial-{trial['number']:05d}.recipe.json"]
        place = f"{url}/artifacts/1/{trial['trial_id']}/{recipe['artifact_id']}"
        weights = get(place)
    assert study["objective_names"] == ["accuracy", "tokens"]
    assert study["note"]["body"].startswith("# small")
    assert {graph["id"] for graph in study["plotly_graph_objects"]} == {
        "front",
        "hypervolume",
        "importance",
    }
    assert {attr["key"] for attr in trial["user_attrs"]} >= {"standard_errors", "host", "phase"}
    assert weights == {p["name"]: float(p["param_external_value"]) for p in trial["params"]}
    assert len(files) == 2


def test_it_stops_while_a_browser_takes_its_time_to_read(finished: Path) -> None:
    with served(finished) as url, closing(socket.socket()) as browser:
        wait_for_graphs(url)
        host, port = url.removeprefix("http://").split(":")
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        browser.connect((host, int(port)))
        browser.sendall(b"GET /static/bundle.js HTTP/1.0\r\nAccept-Encoding: identity\r\n\r\n")
        assert browser.recv(12).endswith(b"200")  # megabytes follow, and are not read
        assert get(f"{url}/api/studies")["study_summaries"]  # others are served meanwhile


def test_the_note_names_models_spec_and_how_to_resume(finished: Path) -> None:
    note = study_note(load_study(StudySpec.from_yaml(finished)))
    for part in ("base (weight 0)", "expert (weight 1)", "mergefront worker", "metric: tokens"):
        assert part in note


def test_a_study_is_painted_once_for_every_number_of_trials(tmp_path: Path) -> None:
    inputs = load_inputs(write_spec(tmp_path))
    study = init_study(inputs)
    assert paint(study, inputs.spec)  # nothing is measured, but the note is written
    assert get_note(study).startswith("# small")
    assert not paint(study, inputs.spec)


def test_a_port_that_is_taken_is_one_clear_line(finished: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = [sys.executable, "-m", "mergefront", "dashboard", str(finished), "--port", port]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


@pytest.mark.parametrize("graph", ["front", "hypervolume", "importance"])
def test_graphs_carry_the_front_reports_numbers(finished: Path, graph: str) -> None:
    from mergefront.study.results.front import front_report
    from mergefront.study.results.report.plotly_figures import graphs
    from mergefront.study.seeding import importance_of

    spec = StudySpec.from_yaml(finished)
    study = load_study(spec)
    report = front_report(study, spec)
    traces = {t.name: t for t in graphs(report, study, importance_of(study))[graph].data}
    if graph == "front":
        front = traces[f"front: hypervolume {report.hypervolume:.3f}"]
        assert len(front.x) == len(report.trials)
        assert list(front.error_x.array) == [
            t.user_attrs["denoised_errors"][1]
            for t in sorted(report.trials, key=lambda t: t.user_attrs["denoised"][1])
        ]
    elif graph == "hypervolume":
        assert traces["all trials"].y[-1] == pytest.approx(report.hypervolume)
    else:
        assert traces.keys() == {"prior importance", "relevance: accuracy", "relevance: tokens"}
        assert max(traces["relevance: tokens"].y) == 1.0


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (None, "200 OK"),
        ("127.0.0.1:8080", "200 OK"),
        ("[::1]:8080", "200 OK"),
        ("localhost", "200 OK"),
        ("LOCALHOST:8080", "200 OK"),
        (socket.gethostname(), "200 OK"),
        ("proxy.example", "200 OK"),
        ("attacker.example:8080", "403 Forbidden"),
        ("127.0.0.1.attacker.example", "403 Forbidden"),
        ("", "403 Forbidden"),
        ("[", "403 Forbidden"),
        ("[::1", "403 Forbidden"),
    ],
)
def test_it_answers_under_names_of_its_own_alone(host: str | None, status: str) -> None:
    def application(environ: object, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return []

    answers: list[str] = []
    environ = {} if host is None else {"HTTP_HOST": host}
    only_for(application, {"proxy.example"})(environ, lambda line, headers: answers.append(line))
    assert answers == [status]


def test_the_painter_outlives_an_absence_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with serve() as server:
        inputs = load_inputs(write_spec(tmp_path, study={"storage": server.new_database()}))
        study = init_study(inputs)
        server.stop()
        page = LivePage(inputs.spec, "spec.yaml")
        painter = threading.Thread(
            target=_paint_for_ever, args=(inputs.spec, page, 0.5), daemon=True
        )
        painter.start()
        for _ in range(100):
            if "the pictures were not drawn" in caplog.text:
                break
            time.sleep(0.1)
        server.start()
        for _ in range(100):
            if through_outages(lambda: _drawn(study)) is not None:
                return
            time.sleep(0.1)
    raise AssertionError("nothing was drawn after the outage")
