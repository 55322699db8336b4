"""What operators read of a worker: lines of JSON, and metrics."""

import json
import socket
import urllib.request
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from mergefront.errors import SpecError
from mergefront.study.api import run as run_by_api
from mergefront.study.cli.json_lines import LogFormat
from mergefront.study.cli.telemetry import address_of, worker_reporter
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from processes import mergefront
from small_study import write_spec


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _small(folder: Path) -> Path:
    return write_spec(folder, 4, study={"trials": 2}, sampler={"preset": "random"})


def test_every_line_of_a_run_is_json(tmp_path: Path) -> None:
    done = mergefront("run", _small(tmp_path), "--log-format", "json")
    assert (done.returncode, done.stdout) == (0, "")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    events = [(line["event"], line["trial"]) for line in lines if "trial" in line]
    assert events == [
        (event, n) for n in range(2) for event in ("trial started", "trial finished")
    ]
    finished = lines[-1]
    assert finished["study"] == "small"
    assert set(finished["values"]) == set(finished["standard_errors"]) == {"accuracy", "tokens"}
    assert finished["time"].endswith("+00:00")


def test_an_error_is_json_too(tmp_path: Path) -> None:
    done = mergefront("worker", tmp_path / "none.yaml", MERGEFRONT_LOG_FORMAT="json")
    assert done.returncode == 1
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["level"], line["logger"]) == ("error", "mergefront.worker")
    assert "none.yaml: No such file" in line["event"]


def test_metrics_count_what_a_worker_did(tmp_path: Path) -> None:
    inputs = load_inputs(_small(tmp_path))
    port = _free_port()
    with worker_reporter(inputs.spec, LogFormat.TEXT, str(port)) as reporter:
        before = _metrics(port)
        assert not any(name.startswith("mergefront_study") for name in before)  # not created yet
        run(inputs, reporter)
        after = _metrics(port)
    assert after['mergefront_trials_total{state="complete",study="small"}'] == 2
    assert after['mergefront_study_trials{state="complete",study="small"}'] == 2
    assert after['mergefront_study_budget{study="small"}'] == 2
    assert after['mergefront_answers_total{study="small"}'] == 8
    assert after['mergefront_generated_tokens_total{study="small"}'] > 0
    assert after['mergefront_running{study="small"}'] == 0
    phases = [f'mergefront_seconds_total{{phase="{p}",study="small"}}' for p in _PHASES]
    assert all(after[phase] > 0 for phase in phases)
    with pytest.raises(OSError, match="refused"):
        _metrics(port)  # it ended with the worker


_PHASES = ("start", "claim", "merge", "evaluate")


def _metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        lines = response.read().decode().splitlines()
    return {k: float(v) for k, v in (x.rsplit(" ", 1) for x in lines if not x.startswith("#"))}


def test_addresses() -> None:
    assert address_of("9464") == ("127.0.0.1", 9464)
    assert address_of("0.0.0.0:9464", 3) == ("0.0.0.0", 9467)
    assert address_of("[::]:9464") == ("::", 9464)
    for wrong in ("", "host", "host:", "0", "70000", "65535"):
        with pytest.raises(SpecError, match="must be"):
            address_of(wrong, 1)


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    spec = load_inputs(_small(tmp_path)).spec
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = str(listener.getsockname()[1])
        refused = pytest.raises(SpecError, match=f"cannot be served at 127.0.0.1:{port}")
        with refused, worker_reporter(spec, LogFormat.TEXT, port):
            pytest.fail("it was served")


def test_callbacks_get_the_study_and_each_finished_trial(tmp_path: Path) -> None:
    seen: list[tuple[str, int, list[float]]] = []

    def note(study: optuna.Study, trial: FrozenTrial) -> None:
        assert (trial.state, set(study.metric_names or ())) == (TrialState.COMPLETE, _METRICS)
        seen.append((study.study_name, trial.number, trial.values))

    study = run_by_api(_small(tmp_path), callbacks=[note])
    assert seen == [("small", trial.number, trial.values) for trial in study.trials]


_METRICS = {"accuracy", "tokens"}
