"""The report's page in a real browser: it draws, picks, sorts and copies without a network."""

import json
import math
import os
import resource
from pathlib import Path
from typing import Any

import pytest
import yaml

import mergefront
from browser import open_page
from mergefront import StudySpec
from mergefront.errors import SpecError
from mergefront.study.results.choice import Wish, choose
from mergefront.study.results.report.page import write_report
from mergefront.study.results.report.page_data import as_script, page_data
from mergefront.study.storage.connection import load_study
from small_study import write_spec


@pytest.fixture(scope="module")
def report(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a validated study with two objectives."""
    study = mergefront.load_study(finished)
    mergefront.validate(study)
    out = tmp_path_factory.mktemp("report")
    spec = mergefront.StudySpec.from_yaml(finished)
    return write_report(study, spec, out, "my spec.yaml")[0]


@pytest.mark.parametrize(
    ("width", "scheme"), [(400, "light"), (900, "light"), (1280, "light"), (1280, "dark")]
)
def test_it_fits_any_width_without_errors_and_without_a_network(
    browser: Any, report: Path, width: int, scheme: str, tmp_path: Path
) -> None:
    opened = open_page(browser, report, width, scheme)
    picture = Path(os.environ.get("REPORT_SCREENSHOTS", tmp_path)) / f"two-{width}-{scheme}.png"
    opened.page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 20_000
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(background.removeprefix("rgb(").split(",")[0])
    assert (red < 80) is (scheme == "dark")


def test_the_sliders_pick_what_the_command_picks(
    browser: Any, report: Path, finished: Path
) -> None:
    page = open_page(browser, report).page
    front = mergefront.front(finished)
    tokens = sorted(trial.user_attrs["denoised"][1] for trial in front.trials)
    for limit in (tokens[-2], tokens[len(tokens) // 2]):
        page.locator("#limit-1").evaluate(
            "(s, value) => { s.value = value; s.dispatchEvent(new Event('input')); }", limit
        )
        expected = choose(front, Wish({"tokens": limit}, {})).best.trial.number
        assert page.locator("#picked").inner_text().startswith(f"Pick: trial {expected}")
        assert f"--trial {expected} " in page.locator("#command").inner_text()
    page.locator("#reset").click()
    expected = choose(front, Wish({}, {})).best.trial.number
    assert page.locator("#picked").inner_text().startswith(f"Pick: trial {expected}")


def test_the_page_expects_what_the_command_expects(browser: Any, report: Path) -> None:
    page = open_page(browser, report).page
    text = (Path(mergefront.__file__).parent / "study/results/report/report.js").read_text()
    functions = text[text.index("// Distribution function") : text.index("// The same rule as")]

    def expected(means: list[float], errors: list[float]) -> float:
        call = f"expectedMinimum({means}, {errors})"
        return float(page.evaluate(f"() => {{ {functions}; return {call}; }}"))

    assert expected([0, 0], [1, 1]) == pytest.approx(-(math.pi**-0.5), abs=1e-4)
    assert expected([0.75, 0.714], [0, 0]) == pytest.approx(0.714, abs=1e-4)


def test_the_command_is_copied(browser: Any, report: Path) -> None:
    page = open_page(browser, report).page
    page.locator("#copy").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("mergefront export 'my spec.yaml' --trial ")
    assert page.locator("#copy").inner_text() == "copied"


def test_the_table_sorts_and_is_linked_to_the_picture(browser: Any, report: Path) -> None:
    page = open_page(browser, report).page

    def column() -> list[float]:
        cells = page.locator("#models tbody tr td:nth-child(6)")
        return [float(value) for value in cells.evaluate_all("c => c.map(x => x.dataset.value)")]

    head = page.locator("#models th", has=page.locator("button[aria-label='tokens, believed']"))
    button = head.locator("button")
    button.click()
    assert column() == sorted(column(), reverse=True)
    assert head.get_attribute("aria-sort") == "descending"
    button.click()
    assert column() == sorted(column())
    row = page.locator("#models tbody tr").last
    row.click()
    number = row.get_attribute("data-n")
    assert "on" in page.locator(f"g.mark[data-n='{number}']").first.get_attribute("class")
    assert page.locator("#model h2").inner_text().startswith(f"trial {number}")
    shown = page.locator("#model").inner_text()
    assert "believed" in shown
    assert "validation" in shown


def test_models_are_reached_by_pointing_and_by_the_keyboard(browser: Any, report: Path) -> None:
    page = open_page(browser, report).page
    marks = page.locator("g.mark:has(.front)")
    first, second = (marks.nth(place).get_attribute("data-n") for place in (0, 1))
    marks.nth(1).dispatch_event("mouseenter")
    assert page.locator("#model h2").inner_text().startswith(f"trial {second}")
    page.locator(f"g.mark[data-n='{first}']").focus()
    assert page.locator("#model h2").inner_text().startswith(f"trial {first}")
    page.keyboard.press("ArrowRight")
    moved = page.evaluate("document.activeElement.dataset.n")
    assert moved != first
    page.keyboard.press("Enter")
    assert f"--trial {moved} " in page.locator("#command").inner_text()
    assert "accuracy" in page.locator("g.mark").first.get_attribute("aria-label")


@pytest.mark.parametrize("names", [["accuracy"], ["accuracy", "tokens", "truncation"]])
def test_one_and_three_objectives(browser: Any, names: list[str], tmp_path: Path) -> None:
    path = write_spec(tmp_path, study={"trials": 5})
    content = yaml.safe_load(path.read_text())
    content["objectives"] = [{"metric": name} for name in names]
    path.write_text(yaml.safe_dump(content))
    study = mergefront.run(path)
    page_path, *_ = write_report(study, mergefront.StudySpec.from_yaml(path), tmp_path / "out")
    for width in (400, 1280):
        opened = open_page(browser, page_path, width)
        picture = (
            Path(os.environ.get("REPORT_SCREENSHOTS", tmp_path)) / f"{len(names)}-{width}.png"
        )
        opened.page.screenshot(path=picture, full_page=True)
        assert opened.errors == []
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        n_panels = {1: 2, 3: 3}[len(names)]
        assert opened.page.locator("#panels svg").count() == n_panels
        assert opened.page.locator("#parallel svg").count() == (len(names) == 3)
        assert opened.page.locator(".stairs").count() == 0  # no front of two where there are three
        assert ("hypervolume" in opened.page.locator(".cards").inner_text()) is (len(names) > 1)


def test_texts_cannot_end_the_script(finished: Path) -> None:
    spec = mergefront.StudySpec.from_yaml(finished)
    front = mergefront.front(load_study(spec))
    data = page_data(front, [], "</script><b>&.yaml")
    text = as_script(data)
    assert "<" not in text
    assert json.loads(text)["spec"] == "</script><b>&.yaml"


def test_a_page_that_finds_no_room_leaves_the_last_one(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "report"
    study, spec = load_study(StudySpec.from_yaml(finished)), StudySpec.from_yaml(finished)
    before = {path: path.read_bytes() for path in write_report(study, spec, out)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(SpecError, match="could not be written: File too large"):
            write_report(study, spec, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in out.iterdir()} == before
