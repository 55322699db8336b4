"""Sizes that keep the code readable."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("study", "samplers", "objectives", "examples", "benchmarks")


def _modules() -> list[Path]:
    return [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*.py")]


def _functions() -> Iterator[tuple[str, int]]:
    """Yield every function's place and its lines without the docstring."""
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if ast.get_docstring(node) is not None:
                    docstring = node.body[0]
                    lines -= (docstring.end_lineno or 0) - docstring.lineno + 1
                yield f"{path.relative_to(REPOSITORY)}:{node.name}", lines


def test_functions_are_short() -> None:
    sizes = dict(_functions())
    assert median(sizes.values()) <= 9
    assert quantiles(sizes.values(), n=20)[-1] <= 48
    assert [name for name, lines in sizes.items() if lines > 100] == []


def test_files_are_short() -> None:
    sizes = {path: path.read_text().count("\n") for path in _modules()}
    assert [path for path, lines in sizes.items() if lines > 400] == []
    assert quantiles(sizes.values(), n=20)[-1] <= 290


def test_folders_hold_a_dozen_modules_at_most() -> None:
    modules = Counter(path.parent for path in _modules() if path.name != "__init__.py")
    assert [folder for folder, n in modules.items() if n > 12] == []


def test_there_are_enough_tests() -> None:
    package = [path for path in _modules() if "benchmarks" not in path.parts]
    source = sum(path.read_text().count("\n") for path in package)
    tests = sum(p.read_text().count("\n") for p in (REPOSITORY / "tests").rglob("*.py"))
    assert tests >= 0.5 * source
