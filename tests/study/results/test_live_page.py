"""What the dashboard shows first: the report's page, drawn anew as trials are measured."""

import os
import urllib.request
from pathlib import Path
from typing import Any

import mergefront
from dashboards import served, wait_for_graphs
from mergefront.study.results.report.live import LivePage
from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import load_inputs
from small_study import write_spec


def _ask(page: LivePage, path: str = "/") -> tuple[str, str]:
    """Return the status and the content of a page, "" where what lies behind answers."""
    told: list[str] = []

    def behind(environ: object, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [])
        return []

    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    answer = page.in_front_of(behind)(environ, lambda status, headers: told.append(status))
    return told[0], b"".join(answer).decode()


def test_it_is_drawn_only_when_something_was_measured_or_validated(tmp_path: Path) -> None:
    path = write_spec(tmp_path, n_questions=8, study={"trials": 4}, importance={"kind": "none"})
    inputs = load_inputs(path)
    study, page = init_study(inputs), LivePage(inputs.spec, "my.yaml")
    assert "No trial is measured yet" in _ask(page)[1]
    assert page.draw(study) is None
    status, content = _ask(page)
    assert (status, "has no finished trial yet" in content) == ("200 OK", True)
    mergefront.run(path)
    assert page.draw(study) is not None
    assert "Not validated yet" in _ask(page)[1]
    assert "mergefront validate my.yaml" in _ask(page)[1]
    assert page.draw(study) is None
    mergefront.validate(study)
    assert page.draw(study) is not None
    assert "On 8 fresh questions" in _ask(page)[1]
    assert _ask(page, "/dashboard/studies/1") == ("404 Not Found", "")


def _open_when_drawn(page: Any, url: str) -> None:
    """Open the page; it is drawn beside the graphs, perhaps after them."""
    for _ in range(60):
        page.goto(url)
        if page.locator("#models").count():
            return
        page.wait_for_timeout(1000)


def test_our_front_comes_first_and_leads_to_optunas_pages(
    browser: Any, finished: Path, tmp_path: Path
) -> None:
    folder = Path(os.environ.get("REPORT_SCREENSHOTS", tmp_path))
    with served(finished) as url:
        wait_for_graphs(url)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        complaints: list[str] = []
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        _open_when_drawn(page, url)
        front = mergefront.front(finished)
        numbers = {row.get_attribute("data-n") for row in page.locator("#models tbody tr").all()}
        assert numbers == {str(trial.number) for trial in front.trials}
        page.screenshot(path=folder / "dashboard-first.png")
        with urllib.request.urlopen(url) as response:
            assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert complaints == []  # the policy forbids nothing that the page needs
        page.get_by_role("link", name="optuna-dashboard").click()
        page.get_by_text("Front, denoised").first.wait_for(timeout=60_000)
        page.wait_for_timeout(2000)
        page.screenshot(path=folder / "dashboard-optuna.png", full_page=True)
        page.close()
