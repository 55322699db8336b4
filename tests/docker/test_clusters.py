"""Kubernetes and Slurm."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState
from typer.main import get_command

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


def test_every_mount_has_its_volume() -> None:
    claims = {d["metadata"]["name"] for d in _documents() if d["kind"] == "PersistentVolumeClaim"}
    for name, pod in _pods().items():
        volumes = {volume["name"] for volume in pod["volumes"]}
        volumes |= {"data"} if name == "mergefront-postgres" else set()
        mounts = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
        assert mounts == volumes
    assert claims == {"mergefront-runs"}


def test_the_jobs_arguments_are_commands_of_ours() -> None:
    group: Any = get_command(app)
    for name in ("mergefront-init", "mergefront-worker"):
        (container,) = _pods()[name]["containers"]
        command, *arguments = container["args"]
        group.commands[command].make_context(command, list(arguments))


def test_workers_are_an_indexed_job_with_a_gpu_each_and_passwords_are_secrets() -> None:
    (job,) = [d for d in _documents() if d["metadata"]["name"] == "mergefront-worker"]
    assert job["spec"]["completionMode"] == "Indexed"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    text = "".join(path.read_text() for path in (DOCKER / "kubernetes").glob("*.yaml"))
    assert "kind: Secret\n" not in text  # made by `kubectl create secret`, never a file
    assert "secretName: mergefront-postgres" in text


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
