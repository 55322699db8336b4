"""`study` may import `samplers` and `objectives`; those two stand alone."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FORBIDDEN = {"samplers": {"study", "objectives"}, "objectives": {"study", "samplers"}}


def _imported_folders(path: Path) -> set[str]:
    """Return the top-level folders of ours that a module imports, absolutely or relatively."""
    package = path.relative_to(REPOSITORY).parts[:-1]
    folders = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name.removeprefix("mergefront.") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            parents = package[: len(package) - node.level + 1]
            base = [*parents, *(node.module or "").split(".")]
            names = [".".join(base).strip(".")] if parents else [(node.module or "")]
        elif isinstance(node, ast.ImportFrom):
            names = [(node.module or "").removeprefix("mergefront.")]
        folders |= {name.split(".")[0] for name in names}
    return folders


@pytest.mark.parametrize("folder", sorted(FORBIDDEN))
def test_samplers_and_objectives_import_neither_each_other_nor_study(folder: str) -> None:
    modules = list((REPOSITORY / folder).rglob("*.py"))
    assert modules
    for module in modules:
        assert not _imported_folders(module) & FORBIDDEN[folder], module


def test_the_check_sees_imports_of_every_form(tmp_path: Path) -> None:
    module = REPOSITORY / "study" / "run.py"
    assert {"samplers", "objectives"} <= _imported_folders(module)


def test_vllm_is_imported_by_its_backend_alone_and_only_when_it_starts() -> None:
    backend = REPOSITORY / "objectives" / "evaluation" / "vllm_backend.py"
    importing = {
        module
        for folder in ("study", "samplers", "objectives")
        for module in (REPOSITORY / folder).rglob("*.py")
        if "vllm" in _imported_folders(module)
    }
    assert importing == {backend}
    at_import = [
        node for node in ast.parse(backend.read_text()).body if isinstance(node, ast.ImportFrom)
    ]
    assert not [node for node in at_import if not node.level and node.module == "vllm"]


@pytest.mark.parametrize("word", ["pickle", "trust_remote_code=True", "torch.load("])
def test_nothing_unsafe_is_loaded(word: str) -> None:
    for folder in ("study", "samplers", "objectives"):
        for module in (REPOSITORY / folder).rglob("*.py"):
            code = ast.unparse(_without_docstrings(ast.parse(module.read_text())))
            assert word not in code, module


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = ""
    return tree
