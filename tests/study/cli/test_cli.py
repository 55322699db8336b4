"""The commands, run as a user runs them."""

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from sqlalchemy.exc import OperationalError, ProgrammingError

from mergefront.study import StudySpec
from mergefront.study.cli.app import _one_line
from mergefront.study.cli.studies.status import _lines
from mergefront.study.results.status import status_of
from mergefront.study.storage.connection import load_study
from processes import mergefront
from small_study import write_spec


def test_init_run_status_front_and_report(tmp_path: Path) -> None:
    path = write_spec(tmp_path, study={"trials": 4}, sampler={"preset": "random"})
    assert "has 4 trials" in mergefront("init", path).stdout
    run = mergefront("run", path)
    assert run.returncode == 0
    assert run.stdout == ""
    lines = run.stderr.splitlines()
    assert lines[0].startswith("study small: 4 trials in sqlite:///")
    assert lines[1].startswith("trial   0 of 4  base          accuracy ")
    assert lines[5].startswith("4 trials in ")
    assert lines[6].startswith(f"next: mergefront front {path} ")
    assert lines[-1].startswith(f"      mergefront report {path} ")
    status = json.loads(mergefront("status", path, "--format", "json").stdout)
    assert status["complete"] == status["budget"] == 4
    assert "complete           4 of 4" in mergefront("status", path).stdout
    table = mergefront("front", path).stdout
    assert "hypervolume" in table
    assert "uniform merges alone" in table
    report = mergefront("report", path).stdout
    assert report.splitlines()[0] == str(tmp_path / "small.report" / "report.html")


def test_two_workers_print_whole_lines_and_status_knows_the_budget(tmp_path: Path) -> None:
    path = write_spec(tmp_path, study={"trials": 3}, sampler={"preset": "random"})
    run = mergefront("run", path, "--workers", "2", "--trials", "5")
    assert run.returncode == 0, run.stderr
    lines = run.stderr.splitlines()
    done = [line for line in lines if re.match(r"trial +\d of 5  .* tokens .* s$", line)]
    assert len(done) == 5
    assert "\x1b" not in run.stderr
    assert lines[0].startswith("study small: 5 trials")
    assert any(line.startswith("2 workers: done after ") for line in lines)
    status = json.loads(mergefront("status", path, "--format", "json").stdout)
    assert (status["complete"], status["budget"], status["hours_left"]) == (5, 5, 0)
    more = json.loads(mergefront("status", path, "--trials", "8", "--format", "json").stdout)
    assert more["budget"] == 8


def test_the_demo_leaves_a_spec_that_every_command_works_with(tmp_path: Path) -> None:
    demo = mergefront("demo", "--out", tmp_path / "my demo", "--trials", "3")
    assert demo.returncode == 0, demo.stderr
    written = tmp_path / "my demo" / "demo.yaml"
    assert f"mergefront validate '{written}' --split test" in demo.stderr
    before = written.read_text()
    assert json.loads(mergefront("status", written, "--format", "json").stdout)["budget"] == 3
    assert mergefront("front", written).returncode == 0
    assert written.read_text() == before


def test_front_as_json_is_all_of_stdout(finished: Path) -> None:
    content = json.loads(mergefront("front", finished, "--format", "json").stdout)
    assert content["metric_names"] == ["accuracy", "tokens"]


def test_validate_and_importance_print_json(finished: Path) -> None:
    content = json.loads(mergefront("validate", finished, "--format", "json").stdout)
    assert content["split"] == "validation"
    importance = json.loads(mergefront("importance", finished, "--format", "json").stdout)
    assert max(value["importance"] for value in importance.values()) == 1.0


def test_export_and_merge_write_checkpoints(finished: Path, tmp_path: Path) -> None:
    exported = mergefront("export", finished, "--trial", 9, "--out", tmp_path / "a")
    assert exported.stdout.strip() == str(tmp_path / "a")
    assert f"vllm serve {tmp_path / 'a'}" in exported.stderr
    (tmp_path / "w.json").write_text('{"uniform": 0.5}')
    mergefront("merge", finished, "--weights", tmp_path / "w.json", "--out", tmp_path / "b")
    for name in ("a", "b"):
        files = {path.name for path in (tmp_path / name).iterdir()}
        assert files >= {"model.safetensors", "config.json", "tokenizer.json", "README.md"}


def test_storage_can_come_from_the_environment(tmp_path: Path) -> None:
    path = write_spec(tmp_path)
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    assert mergefront("init", path, MERGEFRONT_STORAGE=url).returncode == 0
    assert (tmp_path / "elsewhere.db").exists()
    assert not (tmp_path / "study.db").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "none.yaml"), "none.yaml: No such file"),
        (("front", "{spec}"), "There is no study 'small' in"),
        (("worker", "{spec}"), "Start it with `mergefront run`"),
        (("validate", "{spec}", "--split", "test"), "There is no study"),
    ],
)
def test_mendable_errors_are_one_line_and_exit_1(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    path = write_spec(tmp_path)
    result = mergefront(*(argument.format(spec=path) for argument in arguments))
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert message in line


def test_debug_shows_the_traceback() -> None:
    result = mergefront("run", "none.yaml", "--debug")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_wrong_usage_exits_2(spec_path: Path) -> None:
    assert mergefront("run").returncode == 2
    assert mergefront("run", spec_path, "--trials", "0").returncode == 2
    assert mergefront("fly").returncode == 2


def test_changed_settings_are_refused_everywhere(finished: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(finished.read_text())
    content["evaluation"]["max_new_tokens"] = 40
    for split, name in content["evaluation"]["tasks"][0]["files"].items():
        content["evaluation"]["tasks"][0]["files"][split] = str(finished.parent / name)
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(content))
    for command in (("run",), ("validate",), ("export", "--trial", "0", "--out", "x")):
        result = mergefront(command[0], changed, *command[1:])
        assert result.returncode == 1
        assert "evaluation.max_new_tokens was 48, is 40" in result.stderr


def test_a_database_that_is_away_is_told_from_one_that_refuses() -> None:
    line = _one_line(OperationalError("", {}, Exception("server closed the connection.\n")))
    assert line is not None and "connection. Start it again when it does" in line
    line = _one_line(ProgrammingError("", {}, Exception("permission denied for table")))
    assert line is not None and "permission denied for table. Check its user's rights" in line


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_terminals_without_our_characters_get_others(finished: Path, encoding: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    for command in ("status", "front"):
        line = [sys.executable, "-m", "mergefront", command, str(finished)]
        done = subprocess.run(line, capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert b"accuracy" in done.stdout or b"complete" in done.stdout


def test_the_status_shows_a_long_reason_in_short(finished: Path) -> None:
    spec = StudySpec.from_yaml(finished)
    current = status_of(load_study(spec), spec, 10)
    reason = "ValueError: boom\nline two " + "of many " * 100
    (line,) = _lines(replace(current, failures=((3, reason),)), spec.metric_names)[-1:]
    assert line.startswith("  trial 3    FAIL: ValueError: boom line two of many")
    assert len(line) < 230 and line.endswith("...") and "\n" not in line


def test_a_full_disk_is_one_line_whoever_finds_it() -> None:
    line = _one_line(OSError(errno.ENOSPC, "No space left on device"))
    assert line is not None and "No space left on device. Make room" in line
    assert _one_line(OSError(errno.ECONNRESET, "Connection reset by peer")) is None
