"""What a repository shows to those who come to it: versions agree, workflows call what exists."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from mergefront import __version__

REPOSITORY = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CHANGELOG = (REPOSITORY / "CHANGELOG.md").read_text()


def test_versions_agree() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert f"## {__version__} ({citation['date-released']})" in CHANGELOG


def test_new_lines_of_the_changelog_are_unreleased() -> None:
    assert re.findall(r"^## (\S+)", CHANGELOG, flags=re.MULTILINE)[-1] == "Unreleased"


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / ".github").rglob("*.yml")), ids=lambda path: path.name
)
def test_github_reads_its_files(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_the_workflow_runs_the_whole_check_the_docs_and_the_supported_pythons() -> None:
    path = REPOSITORY / ".github" / "workflows" / "ci.yml"
    jobs = yaml.safe_load(path.read_text())["jobs"]
    commands = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert ".ci/run" in commands
    assert (REPOSITORY / ".ci" / "run").exists()
    assert "mkdocs build --strict" in commands
    tested = set(jobs["newest"]["strategy"]["matrix"]["python"])
    named = {c.rsplit(" ", 1)[-1] for c in PROJECT["classifiers"] if "Python :: 3." in c}
    assert tested == named


def test_make_clean_deletes_no_study() -> None:
    recipe = re.search(r"^clean:\n((?:\t.*\n)+)", (REPOSITORY / "Makefile").read_text(), re.M)
    assert recipe is not None
    assert "runs" not in recipe[1]
