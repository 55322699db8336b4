"""The documentation names everything that exists, and nothing of one machine."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from mergefront.study.cli import app
from mergefront.study.selection.catalogue import CatalogueSection
from mergefront.study.spec import study_spec as spec_module

REPOSITORY = Path(__file__).parents[1]
COMMANDS = sorted(command.name or "" for command in app.registered_commands)
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def test_commands_of_the_design_exist() -> None:
    expected = (
        "answers ask compare dashboard demo export front importance init merge new pick "
        "publish report reproduce run select status validate worker"
    )
    assert expected.split() == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented_and_helps_with_an_example(command: str) -> None:
    assert f"`mergefront {command}" in (REPOSITORY / "docs" / "commands.md").read_text()
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: mergefront {command}" in result.output
    assert "--debug" in result.output


def _sections() -> list[type[BaseModel]]:
    found = [value for value in vars(spec_module).values() if isinstance(value, type)]
    return [
        value
        for value in found
        if issubclass(value, BaseModel) and value.__module__.startswith("mergefront.study.spec.")
    ]


def test_every_key_of_the_spec_is_documented() -> None:
    text = (REPOSITORY / "docs" / "spec.md").read_text()
    keys = {key for section in _sections() for key in section.model_fields} - {"folder"}
    assert len(keys) > 25
    assert [key for key in sorted(keys) if not re.search(rf"\b{key}:", text)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target
    for name in re.findall(r"`((?:tests|docs|examples|benchmarks|objectives)/[\w./-]+)", text):
        assert (REPOSITORY / name.rstrip(".:")).exists(), name


def test_the_readme_shows_a_command_its_output_and_a_picture_by_line_40() -> None:
    top = "\n".join((REPOSITORY / "README.md").read_text().splitlines()[:40])
    assert "make demo" in top
    assert "hypervolume" in top
    assert re.search(r"!\[[^\]]+\]\(docs/images/front\.png\)", top)


def test_nothing_names_a_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    pattern = re.compile(r"/(?:root|home|work|Users)/\w")
    for name in listed.stdout.splitlines():
        path = REPOSITORY / name
        if path.is_symlink() or not path.is_file() or path == Path(__file__):
            continue
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".json", ".txt"}:
            assert not pattern.search(path.read_text(encoding="utf-8")), name


def test_the_readmes_table_is_the_committed_validation() -> None:
    path = REPOSITORY / "benchmarks" / "demo" / "validation.json"
    validation = json.loads(path.read_text())
    text = (REPOSITORY / "README.md").read_text()
    rows = re.findall(
        r"^\| (?:the )?(base|expert|trial \d+)\S* .*?\| (0.*) \| (.*) \|$", text, re.M
    )
    assert len(rows) == 7
    for label, *cells in rows:
        (model,) = [m for m in validation["models"] if m["label"] == label]
        values, errors = model["values"], model["standard_errors"]
        assert cells[0] == f"{values['accuracy']:.3f} ± {errors['accuracy']:.3f}"
        assert cells[1] == f"{values['tokens']:.1f} ± {errors['tokens']:.1f}"
    for name in ("front", "curve"):
        low, high = validation["interval"][name]
        assert f"{validation['hypervolume'][name]:.2f} [{low:.2f}, {high:.2f}]" in text
    low, high = validation["interval"]["gain"]
    assert f"a difference of {low:.2f} to {high:.2f}" in text
    gain = validation["hypervolume"]["front"] / validation["hypervolume"]["curve"] - 1
    assert f"{100 * gain:.0f} % more" in text
    clear = [m for m in validation["models"] if m["distinguishable"]]
    front = [m for m in validation["models"] if m["in_front"]]
    assert f"For {len(clear)} of the {len(front)} models" in text


def test_the_catalogue_of_the_page_on_simmerge_is_valid() -> None:
    text = (REPOSITORY / "docs" / "simmerge.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    parsed = CatalogueSection.model_validate(yaml.safe_load(block))
    assert parsed.operators == parsed.model_copy(update={"operators": None}).chosen
    for key in CatalogueSection.model_fields:
        assert re.search(rf"\b{key}:", block), key


def test_the_readmes_spec_is_valid() -> None:
    text = (REPOSITORY / "README.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    spec = spec_module.StudySpec.parse(yaml.safe_load(block), REPOSITORY)
    assert spec.study.trials == 88
