"""What the report's page says to readers: in words, without eyes or mouse, and on paper."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import mergefront
from browser import open_page
from mergefront.study.results.front_table import rounded
from mergefront.study.results.recommendations import spread_out
from mergefront.study.results.report.page import write_report
from mergefront.study.results.validation_study import last_validation
from mergefront.study.storage.artifacts import read_answers
from mergefront.study.storage.connection import artifact_store


@pytest.fixture(scope="module")
def report(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a validated study with two objectives."""
    study = mergefront.load_study(finished)
    mergefront.validate(study)
    out = tmp_path_factory.mktemp("report")
    spec = mergefront.StudySpec.from_yaml(finished)
    return write_report(study, spec, out, "my spec.yaml")[0]


def test_the_headline_is_the_validated_gain_and_the_verdict_on_layers(
    browser: Any, report: Path, finished: Path
) -> None:
    page = open_page(browser, report).page
    content = last_validation(mergefront.load_study(finished), "validation")
    assert content is not None
    volumes, (low, high) = content["hypervolume"], content["interval"]["gain"]
    share = 100 / volumes["curve"]
    gain = share * (volumes["front"] - volumes["curve"])
    told = page.locator(".headline").inner_text()
    assert told.startswith("On 24 fresh questions (validation) the front's hypervolume is ")
    assert f"{gain:+z.0f} % [{share * low:+z.0f}, {share * high:+z.0f}]" in told
    assert ("This may be nothing" in told) is (low <= 0 <= high)
    verdict = mergefront.front(finished).layerwise
    assert verdict is not None
    shown = page.locator("#verdict").inner_text()
    assert shown.startswith(f"By the search alone: {verdict.sentence().replace('`', '')}.")
    assert "clearly beyond the uniform curve" in shown


def test_answers_stand_side_by_side(browser: Any, report: Path, finished: Path) -> None:
    page = open_page(browser, report).page
    study, spec = mergefront.load_study(finished), mergefront.StudySpec.from_yaml(finished)
    front = mergefront.front(finished)
    assert front.knee is not None
    ends = {front.trials[0].number, front.knee, front.trials[-1].number}
    shown = page.locator(".asked")
    assert 1 <= shown.count() <= 10
    for number in ends:
        lines = read_answers(study, artifact_store(spec), number)
        by_question = {line["question"]: line for line in lines}
        for place in range(shown.count()):
            article = shown.nth(place)
            line = by_question[article.locator("h3").inner_text()]
            assert article.locator("p b").first.inner_text() == line["reference"]
            (given,) = [
                box.inner_text()
                for box in article.locator(".given > div").all()
                if box.locator("b").inner_text().split(",")[0] == f"trial {number}"
            ]
            assert given.endswith(line["text"].strip())
            assert f"{'right' if line['score'] else 'wrong'}, {line['n_tokens']} tokens" in given


@pytest.mark.parametrize("width", [900, 1280])
def test_recommended_models_are_read_without_scrolling(
    browser: Any, report: Path, width: int
) -> None:
    page = open_page(browser, report, width).page
    name = "a merge nobody measured, dare_ties(density=0.5, lambda=0.8) of 1+2"
    table = page.locator(".taken")
    table.evaluate(
        "(t, n) => [...t.rows].forEach(r => (r.cells[r.cells.length - 1].textContent = n))", name
    )
    wide, seen = table.evaluate("t => [t.parentElement.scrollWidth, t.parentElement.clientWidth]")
    assert wide <= seen


def test_what_is_recommended_is_marked_as_predicted(
    browser: Any, report: Path, finished: Path
) -> None:
    page = open_page(browser, report).page
    advised = spread_out(mergefront.front(finished).recommended)
    new = [one for one in advised if one.number is None]
    assert page.locator("circle.predicted").count() == len(new)
    table = page.locator("section", has=page.locator("h2", has_text="Recommended"))
    rows = table.locator("tbody tr")
    assert rows.count() == len(advised)
    for place, one in enumerate(advised):
        told = rows.nth(place).inner_text()
        assert f"{one.preference[0]:.2f}" in told
        assert (f"trial {one.number}" in told) is (one.number is not None)
        assert ("nobody measured" in told) is (one.number is None)
        assert rounded(one.values[1], one.fresh_deviations[1]) in told


def test_everything_is_named_for_who_does_not_see_it(browser: Any, report: Path) -> None:
    page = open_page(browser, report).page
    nameless = page.evaluate(
        """() => [...document.querySelectorAll(`img, svg, input, button, [role=button],
          [role=region], [role=img]`)].filter(n => !(n.alt || n.getAttribute('aria-label') ||
          n.textContent.trim() || n.labels?.[0]?.textContent.trim())).map(n => n.outerHTML)"""
    )
    assert nameless == []
    levels = [int(head.evaluate("n => n.tagName[1]")) for head in page.locator("h1, h2, h3").all()]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.tagName"))
    assert {"g", "INPUT"} <= reached


def test_on_paper_there_is_nothing_to_press_and_nothing_is_cut(
    browser: Any, report: Path, tmp_path: Path
) -> None:
    page = open_page(browser, report, scheme="dark").page
    page.emulate_media(media="print")
    for control in (".controls", "#copy", ".toggles"):
        assert not page.locator(control).is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    where = Path(os.environ.get("REPORT_SCREENSHOTS", tmp_path)) / "print.pdf"
    page.pdf(path=where, format="A4", print_background=True)
    assert where.stat().st_size > 20_000
