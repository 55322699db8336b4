"""Which room may import which: the contracts of import-linter in `pyproject.toml`."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("study", "samplers", "objectives")


def _lint(source: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts on the package in `source`."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=source.parent,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
    )


def test_the_rooms_import_downwards_alone() -> None:
    done = _lint(REPOSITORY / "src")
    assert done.returncode == 0, done.stdout
    assert "4 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("samplers/denoise.py", "from ..objectives import objective"),
        ("objectives/merging/plan.py", "from ...study import seeding"),
        ("study/storage/locks.py", "from ..workers import claims"),
    ],
)
def test_an_arrow_upwards_is_found(tmp_path: Path, module: str, line: str) -> None:
    package = tmp_path / "src" / "mergefront"
    only_code = shutil.ignore_patterns("*.safetensors", "*.json*", "__pycache__")
    shutil.copytree(REPOSITORY / "src" / "mergefront", package, ignore=only_code)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    with (package / module).open("a") as file:
        file.write(f"\n{line}\n")
    assert _lint(tmp_path / "src").returncode == 1


def _imported(path: Path) -> set[str]:
    """Return the top-level packages that a module imports absolutely."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module or "")
    return {name.split(".")[0] for name in names}


def test_vllm_is_imported_by_its_backend_alone_and_only_when_it_starts() -> None:
    backends = REPOSITORY / "objectives" / "evaluation" / "backends"
    importing = {
        module
        for folder in FOLDERS
        for module in (REPOSITORY / folder).rglob("*.py")
        if "vllm" in _imported(module)
    }
    assert backends / "vllm_backend.py" in importing
    for module in importing:
        assert module.name == "vllm_backend.py" or module.parent == backends / "vllm_swap"
        at_import = [
            node
            for node in ast.parse(module.read_text()).body
            if isinstance(node, ast.Import | ast.ImportFrom) and "vllm" in ast.unparse(node)
        ]
        assert all(isinstance(node, ast.ImportFrom) and node.level for node in at_import), module


@pytest.mark.parametrize("word", ["pickle", "trust_remote_code=True", "torch.load("])
def test_nothing_unsafe_is_loaded(word: str) -> None:
    for folder in FOLDERS:
        for module in (REPOSITORY / folder).rglob("*.py"):
            code = ast.unparse(_without_docstrings(ast.parse(module.read_text())))
            assert word not in code, module


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return tree
