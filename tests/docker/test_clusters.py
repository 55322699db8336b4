"""Kubernetes and Slurm."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from optuna.trial import TrialState
from typer.main import get_command

from mergefront.errors import STOPPED
from mergefront.study import StudySpec
from mergefront.study.cli import app
from mergefront.study.storage.connection import load_study
from postgres import Server
from small_study import write_spec

DOCKER = Path(__file__).parents[2] / "docker"


def _documents() -> list[dict[str, Any]]:
    paths = sorted((DOCKER / "kubernetes").glob("*.yaml"))
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def _pods() -> dict[str, dict[str, Any]]:
    return {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]
        for document in _documents()
        if "template" in document["spec"]
    }


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [*pod.get("initContainers", ()), *pod["containers"]]
    return found


@pytest.mark.parametrize("version", ["1.32", "1.37"])
def test_the_manifests_fit_the_schemas(version: str) -> None:
    for document in _documents():
        kubernetes_validate.validate(document, version, strict=True)


def test_every_mount_has_its_volume() -> None:
    claims = {d["metadata"]["name"] for d in _documents() if d["kind"] == "PersistentVolumeClaim"}
    used = set()
    for name, pod in _pods().items():
        volumes = {volume["name"] for volume in pod["volumes"]}
        volumes |= {"data"} if name == "mergefront-postgres" else set()
        mounts = {m["name"] for c in _containers(pod) for m in c["volumeMounts"]}
        assert mounts == volumes
        claim = "persistentVolumeClaim"
        used |= {volume[claim]["claimName"] for volume in pod["volumes"] if claim in volume}
    assert claims == used == {"mergefront-runs", "mergefront-models"}


def test_the_jobs_arguments_are_commands_of_ours() -> None:
    group: Any = get_command(app)
    commands = []
    for container in _containers(_pods()["mergefront"]):
        command, *arguments = container["args"]
        group.commands[command].make_context(command, list(arguments))
        commands.append(command)
    assert commands == ["init", "worker"]


def test_pods_pass_the_restricted_level_and_ask_for_what_they_use() -> None:
    for pod in _pods().values():
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in _containers(pod):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_a_worker_that_was_stopped_is_started_again_and_a_broken_one_is_not_for_ever() -> None:
    (job,) = [d for d in _documents() if d["kind"] == "Job"]
    assert job["spec"]["completionMode"] == "Indexed"
    rules = job["spec"]["podFailurePolicy"]["rules"]
    codes = [rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule]
    assert codes == [[STOPPED]]
    conditions = [c["type"] for r in rules for c in r.get("onPodConditions", ())]
    assert conditions == ["DisruptionTarget"]
    assert 0 < job["spec"]["backoffLimitPerIndex"] <= 3
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    assert container["imagePullPolicy"] == "IfNotPresent"


def test_passwords_are_secrets() -> None:
    text = "".join(path.read_text() for path in (DOCKER / "kubernetes").glob("*.yaml"))
    assert "kind: Secret\n" not in text  # made by `kubectl create secret`, never a file
    assert "secretName: mergefront-postgres" in text


def test_slurm_writes_its_log_where_a_folder_is_and_asks_for_memory() -> None:
    lines = (DOCKER / "slurm" / "study.sbatch").read_text().splitlines()
    settings = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH -")]
    options = {name: value for name, _, value in (s.partition("=") for s in settings)}
    assert "/" not in options["--output"]
    assert options["--mem"]


def test_the_tasks_of_a_slurm_array_make_one_study(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_spec(tmp_path, study={"trials": 9}, sampler={"preset": "random"})
    url = postgres.new_database()
    environment = {
        **os.environ,
        "MERGEFRONT_STORAGE": url,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
    }
    line = ["bash", str(DOCKER / "slurm" / "study.sbatch"), str(path)]
    tasks = [subprocess.Popen(line, env=environment, cwd=tmp_path) for _ in range(2)]
    assert [task.wait(timeout=300) for task in tasks] == [0, 0]
    spec = StudySpec.from_yaml(path).with_overrides(storage=url)
    states = [trial.state for trial in load_study(spec).get_trials()]
    assert states == [TrialState.COMPLETE] * 9
