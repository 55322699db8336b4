"""Every block of code in README and docs runs here, or says in its title why it cannot.

The commands run on one small finished study of the demo pair, which stands for the reader's; a
document's blocks run in order, its Python in one namespace. Blocks with a title are read: their
commands and options, make targets and scripts must exist.
"""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import typer.core
import typer.main
import yaml
from sybil import Document, Region
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer
from typer.testing import CliRunner

from mergefront.examples.demo import QUESTIONS
from mergefront.study.cli import app
from mergefront.study.selection.catalogue import CatalogueSection
from mergefront.study.spec import StudySpec
from mergefront.study.spec.schema import json_schema

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
DOCUMENTS += sorted((REPOSITORY / "docs").rglob("*.md"))
LANGUAGES = {"bash", "python", "yaml", "json", "text"}
REASONS = {
    "all keys",
    "mergekit-evolve",
    "needs Docker and a GPU",
    "needs a GPU",
    "needs a clone",
    "needs a package that it names",
    "needs models of your own",
    "needs the network",
    "runs until you stop it",
    "takes minutes",
    "takes minutes to hours",
}
# What a document's blocks print: a pattern, and how many lines have it at least.
PRINTED = {
    "README.md": (r"^\d+ \[0\.\d+, \d+\.\d+\]$", 5),
    "docs/simmerge.md": (r"^ties math$", 1),
    "docs/first-hour.md": (r"^\w.*$", 1),
}
_BLOCKS = RawFencedCodeBlockLexer(
    re.compile(r'(?P<language>\w*)(?: title="(?P<title>[^"\n]*)")?[ \t]*\n')
)
_TARGETS = set(
    re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
)


def _blocks(document: Path) -> Iterator[Region]:
    text = document.read_text()
    found = list(_BLOCKS(Document(text, str(document))))
    assert len(found) == len(re.findall(r"^[ >]*```\w", text, flags=re.MULTILINE))
    yield from found


def _commands(source: str) -> Iterator[list[str]]:
    """Yield the words of each command, comments aside."""
    for line in source.replace("\\\n", " ").splitlines():
        for part in line.split("&&"):
            if words := shlex.split(part, comments=True):
                yield words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder: a finished study under the names that the pages use."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "examples").mkdir()
    shutil.copytree(REPOSITORY / "examples" / "demo", folder / "examples" / "demo")
    content = yaml.safe_load((REPOSITORY / "examples" / "demo.yaml").read_text())
    content["study"]["trials"] = 10
    content["evaluation"]["max_new_tokens"] = 48
    for split in content["evaluation"]["tasks"][0]["files"]:
        lines = (QUESTIONS / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (folder / "examples" / "demo" / "questions" / f"{split}.jsonl").write_text(
            "".join(lines[:24])
        )
    (folder / "examples" / "demo.yaml").write_text(yaml.safe_dump(content))
    for task in content["evaluation"]["tasks"]:
        task["files"] = {split: f"examples/{name}" for split, name in task["files"].items()}
    content["models"] |= {"base": "examples/demo/base", "experts": ["examples/demo/expert"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    (folder / "weights.json").write_text('{"uniform": 0.5}')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _invoke(["run", "study.yaml"])
    return folder


def _invoke(words: list[str]) -> None:
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"mergefront {' '.join(words)}\n{result.output}"


def _run(words: list[str]) -> None:
    """Run one command of a page."""
    program, *arguments = words
    assert program == "mergefront", f"say in the block's title why `{program}` does not run"
    if "--trial" in arguments:  # the small study has fewer trials than the page's
        arguments[arguments.index("--trial") + 1] = "7"
    if "--out" in arguments:
        shutil.rmtree(arguments[arguments.index("--out") + 1], ignore_errors=True)
    _invoke(arguments)


def _check_command(words: list[str]) -> None:
    """Check that what a page names exists, where it does not run."""
    program, *arguments = words
    if program.endswith("mergefront"):
        group = typer.main.get_command(app)
        assert isinstance(group, typer.core.TyperGroup)
        known = {o for p in group.commands[arguments[0]].params for o in p.opts}
        assert {a for a in arguments if a.startswith("--")} <= {*known, "--help"}, words
    elif program == "make":
        assert {a for a in arguments if "=" not in a} <= _TARGETS, words
    elif program.endswith("python"):
        named = [a for a in arguments if a.startswith(("benchmarks/", "tests/"))]
        assert all((REPOSITORY / name).exists() for name in named), words


def _check_yaml(source: str, title: str | None) -> None:
    content = yaml.safe_load(source)
    if title == "mergekit-evolve":
        return
    if title == "all keys":  # alternatives beside each other: no valid spec, but known keys
        errors = jsonschema.Draft202012Validator(json_schema()).iter_errors(content)
        assert [e.message for e in errors if e.validator == "additionalProperties"] == []
        return
    if isinstance(content.get("models"), dict) and "operators" in content:
        CatalogueSection.model_validate(content)
        return
    # A fragment stands in a spec that is complete without it.
    base = yaml.safe_load((REPOSITORY / "examples" / "demo.yaml").read_text())
    for section, keys in content.items():
        whole = isinstance(keys, dict) and section in base
        base[section] = {**base[section], **keys} if whole else keys
    StudySpec.parse(base, REPOSITORY / "examples")


def _do(block: Region, namespace: dict[str, Any], document: Path) -> None:
    source, language = str(block.lexemes["source"]), block.lexemes["language"]
    title = block.lexemes["title"]
    assert language in LANGUAGES, f"a block of {document.name} has no known language"
    assert title is None or title in REASONS, title
    if language == "yaml":
        _check_yaml(source, title)
    elif language == "json":
        for line in source.splitlines():
            json.loads(line)
    elif language == "bash":
        for words in _commands(source):
            _check_command(words) if title else _run(words)
    elif language == "python":
        code = compile(source, document.name, "exec")
        if title is None:
            exec(code, namespace)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_run(
    document: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    shutil.rmtree(folder / "merged", ignore_errors=True)  # another page's export
    namespace: dict[str, Any] = {}
    for block in _blocks(document):
        try:
            _do(block, namespace, document)
        except Exception as error:
            line = document.read_text()[: block.start].count("\n") + 1
            raise AssertionError(f"{document.name}, line {line}: {error}") from error
    pattern, times = PRINTED.get(str(document.relative_to(REPOSITORY)), ("", 0))
    assert len(re.findall(pattern, capsys.readouterr().out, flags=re.MULTILINE)) >= times


def test_most_blocks_run() -> None:
    blocks = [b for document in DOCUMENTS for b in _blocks(document)]
    code = [b for b in blocks if b.lexemes["language"] in ("bash", "python", "yaml", "json")]
    titled = [b for b in code if b.lexemes["title"]]
    assert len(code) > 40
    assert len(titled) < 0.6 * len(code)
