"""The documentation's site builds strictly: a broken link or an unknown reference is an error."""

import shutil
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import Abort

REPOSITORY = Path(__file__).parents[1]
CONFIG = str(REPOSITORY / "mkdocs.yml")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    build(load_config(CONFIG, site_dir=str(folder)))
    return folder


def test_the_references_are_those_of_the_code(site: Path) -> None:
    commands = (site / "reference" / "cli" / "index.html").read_text()
    assert "mergefront validate" in commands
    keys = (site / "reference" / "spec" / "index.html").read_text()
    assert "grace_seconds" in keys
    assert "evaluation.racing" in keys
    assert "n_startup_trials" in (site / "reference" / "api" / "index.html").read_text()


def test_links_out_of_the_documentation_lead_to_the_repository(site: Path) -> None:
    page = (site / "methods" / "index.html").read_text()
    assert "/blob/main/tests/samplers/test_bmm_sampler.py" in page
    assert 'src="images/front.png"' in (site / "index.html").read_text()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "[a](no-page.md) [b](index.md#no-place) [c](../tests/no_file.py)",
            ["no-page", "no-place", "no_file"],
        ),
        ("![a picture](images/no-picture.png)", ["no-picture"]),
        ("::: mergefront.samplers.NoSampler", ["NoSampler"]),
    ],
    ids=["links", "picture", "reference"],
)
def test_what_leads_nowhere_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, named: list[str]
) -> None:
    docs = tmp_path / "docs"
    shutil.copytree(REPOSITORY / "docs", docs)
    (docs / "faq.md").write_text(text)
    with pytest.raises(Abort):
        build(load_config(CONFIG, docs_dir=str(docs), site_dir=str(tmp_path / "site")))
    assert [name for name in named if name not in caplog.text] == []
