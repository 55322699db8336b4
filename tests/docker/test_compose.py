"""The compose file: valid, closed, and its services' own commands run to the end."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import compose
import pytest
import sqlalchemy
from optuna.trial import TrialState

from mergefront.study import StudySpec
from mergefront.study.storage.connection import load_study
from postgres import Server, programs, serve
from small_study import write_spec

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
# The binary itself: the package's script always exits with 0.
COMPOSE = Path(compose.__file__).with_name("docker-compose")
PASSWORD = "Ga7-long-random-text"


def _config(profile: str, **environment: str) -> dict[str, Any]:
    line = [str(COMPOSE), "-f", str(DOCKER / "compose.yaml"), "--profile", profile]
    done = subprocess.run(
        [*line, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "POSTGRES_PASSWORD": PASSWORD, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


@pytest.mark.parametrize("profile", ["gpu", "cpu"])
def test_services(profile: str) -> None:
    services = _config(profile)["services"]
    worker = "worker" if profile == "gpu" else "worker-cpu"
    assert services.keys() == {"postgres", "init", worker, "dashboard"}
    assert "ports" not in services["postgres"]
    assert [p["host_ip"] for p in services["dashboard"]["ports"]] == ["127.0.0.1"]
    assert not any("ports" in services[name] for name in ("init", worker))
    order = {name: s.get("depends_on", {}) for name, s in services.items()}
    assert order["init"]["postgres"]["condition"] == "service_healthy"
    assert order[worker]["init"]["condition"] == "service_completed_successfully"
    assert (services["init"]["restart"], services[worker]["restart"]) == ("no", "on-failure:3")
    assert services[worker]["stop_grace_period"] == "1m0s"
    assert ("deploy" in services[worker]) is (profile == "gpu")


def test_the_password_is_a_secret_and_in_no_environment() -> None:
    config = _config("gpu")
    for service in config["services"].values():
        assert PASSWORD not in json.dumps(service)
        assert [secret["source"] for secret in service["secrets"]] == ["postgres_password"]
    assert config["secrets"]["postgres_password"]["environment"] == "POSTGRES_PASSWORD"


def test_an_empty_password_is_refused_and_named() -> None:
    line = [str(COMPOSE), "-f", str(DOCKER / "compose.yaml"), "config"]
    environment = {"PATH": os.environ["PATH"], "POSTGRES_PASSWORD": ""}
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD is missing a value: set it in docker/.env" in done.stderr


def test_one_profile_in_the_settings_serves_every_command() -> None:
    example = (DOCKER / ".env.example").read_text()
    assert "\nCOMPOSE_PROFILES=gpu\n" in example
    names = set(re.findall(r"\${([A-Z_]+)", (DOCKER / "compose.yaml").read_text()))
    assert names - {"MERGEFRONT_IMAGE", "MERGEFRONT_NEVER_SET"} <= set(
        re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)
    )


def test_a_change_of_the_code_installs_no_package_again() -> None:
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    assert not lines[0].startswith("# syntax")  # needs a registry, for nothing that is used
    first_code = next(i for i, line in enumerate(lines) if line.startswith("COPY src"))
    assert any("-r /opt/mergefront/requirements.txt" in line for line in lines[:first_code])
    assert sum("pip install" in line for line in lines[first_code:]) == 1
    (last,) = [line for line in lines[first_code:] if "pip install" in line]
    assert "--no-deps" in last


def test_the_images_requirements_are_the_projects() -> None:
    line = [sys.executable, str(DOCKER / "requirements.py"), str(ROOT / "pyproject.toml")]
    printed = subprocess.run([*line, "postgres,eval"], capture_output=True, text=True, check=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    expected = [*project["dependencies"], *extras["postgres"], *extras["eval"]]
    assert sorted(printed.stdout.splitlines()) == sorted(expected)
    wrong = subprocess.run([*line, "postgre"], capture_output=True, text=True)
    assert wrong.returncode != 0 and "there are" in wrong.stderr


def test_the_file_with_the_password_is_ignored_by_git() -> None:
    line = ["git", "check-ignore", "-q", str(DOCKER / ".env")]
    assert subprocess.run(line, cwd=DOCKER).returncode == 0


def test_ours_run_without_root_and_write_to_one_volume() -> None:
    for name, service in _config("gpu")["services"].items():
        if name != "postgres":
            assert service["cap_drop"] == ["ALL"]
            writable = [v["target"] for v in service["volumes"] if not v.get("read_only")]
            assert writable == ["/study/runs"]
    assert "USER 10001" in (DOCKER / "Dockerfile").read_text()


def test_no_service_is_read_only_and_has_a_secret_of_the_environment() -> None:
    # Compose accepts the pair in `config`, and refuses it when it creates the container.
    config = _config("gpu")
    of_environment = {n for n, secret in config["secrets"].items() if "environment" in secret}
    for name, service in config["services"].items():
        secrets = {secret["source"] for secret in service.get("secrets", ())}
        assert not (service.get("read_only") and secrets & of_environment), name


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint is not None
    done = subprocess.run([hadolint, str(DOCKER / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


class Machine:
    """Runs services as processes: what an engine would do with names, files and signals.

    Args:
        folder: Working directory, and place of the secret.
        server: Stands for the service `postgres`.
        spec: Of the study.
    """

    def __init__(self, folder: Path, server: Server, spec: Path) -> None:
        self.services = _config("cpu", SPEC=str(spec))["services"]
        (folder / "secret").write_text(PASSWORD)
        self._folder, self._server = folder, server

    def start(self, service: str, **replaced: str) -> "subprocess.Popen[bytes]":
        """Start a service's command in its environment."""
        command = [replaced.get(word, word) for word in self.services[service]["command"]]
        environment = {k: self._here(v) for k, v in self.services[service]["environment"].items()}
        return subprocess.Popen(
            [sys.executable, "-m", "mergefront", *command],
            cwd=self._folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        )

    def run(self, service: str) -> int:
        """Run a service to its end."""
        return self.start(service).wait(timeout=300)

    def healthy(self) -> bool:
        """Run the database's own health check."""
        check = self.services["postgres"]["healthcheck"]["test"][1:]
        line = [str(programs() / check[0]), *check[1:], "-p", str(self._server.port)]
        return subprocess.run(line, stdout=subprocess.DEVNULL).returncode == 0

    def _here(self, value: str) -> str:
        return value.replace("postgres:5432", f"127.0.0.1:{self._server.port}").replace(
            "/run/secrets/postgres_password", str(self._folder / "secret")
        )


@pytest.fixture
def server() -> Iterator[Server]:
    """PostgreSQL as the service makes it: its own user and database, scram passwords."""
    with serve(password=PASSWORD) as server:
        server.execute(f"CREATE ROLE mergefront LOGIN PASSWORD '{PASSWORD}'")
        server.execute("CREATE DATABASE mergefront OWNER mergefront")
        yield server


def _wait_for_complete(spec: StudySpec, n: int) -> None:
    for _ in range(1200):
        states = [t.state for t in load_study(spec).get_trials(deepcopy=False)]
        if states.count(TrialState.COMPLETE) >= n:
            return
        time.sleep(0.1)
    raise AssertionError("the workers measured nothing")


def test_the_services_commands_run_a_study_through_stop_and_up(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(tmp_path, n_questions=100, study={"trials": 16})
    machine = Machine(tmp_path, server, path)
    assert machine.healthy()
    assert machine.run("init") == 0
    monkeypatch.setenv("MERGEFRONT_STORAGE_PASSWORD_FILE", str(tmp_path / "secret"))
    url = f"postgresql://mergefront@127.0.0.1:{server.port}/mergefront"
    spec = StudySpec.from_yaml(path).with_overrides(storage=url)

    workers = [machine.start("worker-cpu") for _ in range(2)]
    _wait_for_complete(spec, 3)
    for worker in workers:
        worker.send_signal(signal.SIGTERM)  # docker compose stop
    assert [worker.wait(timeout=60) for worker in workers] == [143, 143]
    states = [t.state for t in load_study(spec).get_trials()]
    assert TrialState.RUNNING not in states

    assert machine.run("init") == 0  # docker compose up, again
    workers = [machine.start("worker-cpu") for _ in range(2)]
    port = _free_port()
    dashboard = machine.start("dashboard", **{"8080": str(port), "0.0.0.0": "127.0.0.1"})
    try:
        assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
        _wait_for_dashboard(port)
    finally:
        dashboard.terminate()
        assert dashboard.wait(timeout=60) == 0
    states = [t.state for t in load_study(spec).get_trials()]
    assert states.count(TrialState.COMPLETE) == 16
    assert not {TrialState.RUNNING, TrialState.WAITING} & set(states)
    with sqlalchemy.create_engine(server.url("mergefront")).connect() as connection:
        method = connection.execute(sqlalchemy.text("SHOW password_encryption")).scalar_one()
    assert method == "scram-sha-256"


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for_dashboard(port: int) -> None:
    for _ in range(120):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=10) as r:
                assert [s["study_name"] for s in json.load(r)["study_summaries"]] == ["small"]
                return
        except OSError:
            time.sleep(0.5)
    raise AssertionError("the dashboard never answered")
