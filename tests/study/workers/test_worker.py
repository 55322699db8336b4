"""Killed anywhere and started again: nothing lost, nothing twice, the budget exact."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState

from mergefront.errors import EngineError, StudyError
from mergefront.objectives import Measurement, MergeObjective
from mergefront.study import StudySpec
from mergefront.study.run import make_sampler, run, run_many
from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study, state_dir
from mergefront.study.workers.worker import MAX_FAILURES, SilentReporter
from processes import COMMAND, Program
from small_study import write_spec

TRIALS = 5

# Runs a study, logs every finished evaluation, and kills itself once at the named place of
# trial 3, the second that the sampler proposes.
_DRIVER = """
import os, signal, sys
from pathlib import Path
import optuna
from mergefront.objectives import MergeObjective
from mergefront.study.workers.claims import Claims
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.ledger import Ledger
from mergefront.study.run import run
from mergefront.study.workers import spool
from mergefront.study.workers.spool import Spool

path, place = Path(sys.argv[1]), sys.argv[2]

def die_if(condition):
    if condition:
        os.kill(os.getpid(), signal.SIGKILL)

measure, claim, deliver = MergeObjective.measure, Claims.claim, Spool.deliver
store, end = spool.store_artifact, Ledger.end
current = [None]

def patched_claim(*arguments):
    trial = claim(*arguments)
    current[0] = getattr(trial, "number", None)
    die_if(place == "claim" and current[0] == 3)
    return trial

def patched_measure(self, *arguments):
    die_if(place == "evaluation" and current[0] == 3)
    result = measure(self, *arguments)
    with (path.parent / "evaluations").open("a") as file:
        print(sorted(arguments[0].items()), file=file)
    return result

def patched_deliver(self, claims, lock, file, result):
    die_if(place == "spool" and result.number == 3)
    deliver(self, claims, lock, file, result)
    die_if(place == "tell" and result.number == 3)

def patched_store(files, owner, name, content):
    meta = store(files, owner, name, content)
    die_if(place == "upload" and name.startswith("trial-00003"))
    return meta

def patched_end(self, *arguments):
    ended = end(self, *arguments)
    die_if(place == "transaction" and current[0] == 3)
    return ended

MergeObjective.measure, Claims.claim = patched_measure, patched_claim
Spool.deliver, spool.store_artifact, Ledger.end = patched_deliver, patched_store, patched_end
run(load_inputs(path))
"""


def _start(path: Path, place: str) -> int:
    return Program(_DRIVER, str(path), place).wait(120)


PLACES = ["claim", "evaluation", "spool", "upload", "transaction", "tell"]


@pytest.mark.parametrize("place", PLACES)
def test_killed_and_resumed(
    tmp_path: Path, storage_url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study_section = {"trials": TRIALS, "storage": storage_url}
    path = write_spec(tmp_path, study=study_section, sampler={"n_startup_trials": 2})
    assert _start(path, place) == -signal.SIGKILL
    study = load_study(StudySpec.from_yaml(path))
    before = {t.number: t for t in study.get_trials() if t.state == TrialState.COMPLETE}
    assert len(before) == (4 if place == "tell" else 3)

    assert _start(path, "nowhere") == 0
    trials = study.get_trials()
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    assert len(complete) == TRIALS
    assert not any(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials)
    assert all(before[t.number] == t for t in complete if t.number in before)

    evaluations = (tmp_path / "evaluations").read_text().splitlines()
    assert len(evaluations) == len(set(evaluations)) == TRIALS
    assert {str(sorted(t.params.items())) for t in complete} == set(evaluations)
    assert all("standard_errors" in t.user_attrs for t in complete)
    failed = [t for t in trials if t.state == TrialState.FAIL]
    assert len(failed) == (1 if place in ("claim", "evaluation") else 0)
    assert list((state_dir(load_inputs(path).spec) / "spool").glob("trial-*")) == []


def _cli(*arguments: str) -> Program:
    return Program(COMMAND, *arguments)


def _wait_for(path: Path, state: TrialState, n: int) -> None:
    spec = StudySpec.from_yaml(path)
    for _ in range(600):
        time.sleep(0.1)
        try:
            trials = load_study(spec).get_trials(deepcopy=False)
        except StudyError:
            continue
        if sum(trial.state == state for trial in trials) >= n:
            return
    raise AssertionError(f"never saw {n} trials in state {state.name}")


def test_several_workers_keep_the_budget_through_a_kill(tmp_path: Path) -> None:
    path = write_spec(tmp_path, sampler={"preset": "random"})
    process = _cli("run", str(path), "--workers", "3")
    _wait_for(path, TrialState.COMPLETE, 2)
    process.kill()  # its workers live on, as orphans do
    process.wait()
    assert _cli("run", str(path), "--workers", "2").wait() == 0
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    complete = [tuple(t.params.values()) for t in trials if t.state == TrialState.COMPLETE]
    assert len(complete) == len(set(complete)) == 10


def test_sigterm_queues_the_trial_again_and_exits_0(tmp_path: Path) -> None:
    path = write_spec(tmp_path, n_questions=320, evaluation={"batch_size": 1})
    process = _cli("run", str(path))
    _wait_for(path, TrialState.RUNNING, 1)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    assert [t.state for t in trials].count(TrialState.RUNNING) == 0
    (stopped,) = [t for t in trials if t.state == TrialState.FAIL]
    assert stopped.user_attrs["failure"] == "the worker was asked to stop"
    assert trials[-1].state == TrialState.WAITING
    assert trials[-1].params == stopped.params
    assert trials[-1].system_attrs["retry_history"] == []


class _Recorder(SilentReporter):
    def __init__(self) -> None:
        self.events: list[str] = []

    def started(self, trial: FrozenTrial, n_questions: int) -> None:
        self.events.append(f"started {trial.number}")

    def answered(self, n: int) -> None:
        self.events.append(f"answered {n}")

    def finished(self, trial: FrozenTrial, measurement: Measurement) -> None:
        self.events.append(f"finished {trial.number}")

    def failed(self, trial: FrozenTrial, reason: str) -> None:
        self.events.append(f"failed {trial.number}: {reason}")


def _break(monkeypatch: pytest.MonkeyPatch, numbers: set[int]) -> None:
    """Make the n-th measurements fail."""
    measure, calls = MergeObjective.measure, iter(range(10**6))

    def broken(self: MergeObjective, *arguments: object) -> Measurement:
        if next(calls) in numbers:
            raise RuntimeError("out of memory")
        return measure(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(MergeObjective, "measure", broken)


def test_a_failure_is_a_fail_with_its_reason_and_the_budget_is_still_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(tmp_path, study={"trials": 4}, sampler={"preset": "random"})
    _break(monkeypatch, {1})
    recorder = _Recorder()
    run(load_inputs(path), recorder)
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    assert [t.state.name for t in trials] == ["COMPLETE", "FAIL", *["COMPLETE"] * 3]
    assert trials[1].user_attrs["failure"] == "RuntimeError: out of memory"
    assert trials[1].values is None
    expected = ["started 0", *["answered 1"] * 24, "finished 0", "started 1"]
    assert recorder.events[:28] == [*expected, "failed 1: RuntimeError: out of memory"]


def test_failures_in_a_row_stop_the_worker_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(tmp_path, study={"trials": 5})
    _break(monkeypatch, set(range(2, 2 + MAX_FAILURES)))
    with pytest.raises(StudyError, match=r"3 trials in a row .* RuntimeError: out of memory"):
        run(load_inputs(path))


def test_finished_trials_carry_the_documented_attributes(finished: Path) -> None:
    trials = load_study(StudySpec.from_yaml(finished)).get_trials()
    assert len(trials) == 10
    for trial in trials:
        assert trial.user_attrs.keys() >= {
            "standard_errors",
            "n_questions",
            "generated_tokens",
            "merge_seconds",
            "evaluate_seconds",
            "host",
            "worker",
            "phase",
            "fingerprint",
            "finish_reasons",
        }
    phases = [trial.user_attrs["phase"] for trial in trials]
    assert phases == ["parent"] * 2 + ["uniform"] * 6 + ["search"] * 2


def test_a_finished_study_is_left_alone(finished: Path) -> None:
    spec = StudySpec.from_yaml(finished)
    before = load_study(spec).get_trials()
    timings = run(load_inputs(finished))
    assert timings.n_trials == 0
    assert load_study(spec).get_trials() == before


def test_the_study_continues_when_more_trials_are_asked_for(tmp_path: Path) -> None:
    path = write_spec(tmp_path, study={"trials": 3}, sampler={"preset": "random"})
    run(load_inputs(path))
    run(load_inputs(write_spec(tmp_path, study={"trials": 4}, sampler={"preset": "random"})))
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4


def test_no_checkpoint_is_written_during_the_search(finished: Path) -> None:
    files = [path for path in finished.parent.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".safetensors"]


@pytest.mark.parametrize("preset", ["mergefront", "qnehvi", "gp", "tpe", "nsga2", "random"])
def test_every_preset_proposes_within_bounds(finished: Path, preset: str) -> None:
    spec = StudySpec.from_yaml(finished)
    content = json.loads(spec.model_dump_json()) | {"sampler": {"preset": preset}}
    inputs = load_inputs(finished)
    changed = type(inputs)(
        StudySpec.parse(content, spec.folder), inputs.base, inputs.experts, inputs.plan, ()
    )
    source = load_study(spec)
    study = optuna.create_study(directions=spec.directions)
    study.add_trials(source.get_trials())
    study.sampler = make_sampler(changed, study)
    trial = study.ask(optuna.search_space.intersection_search_space(source.get_trials()))
    assert all(0 <= weight <= 1 for weight in trial.params.values())
    assert len(trial.params) == 10


def test_a_candidate_whose_engine_failed_is_tried_again_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(tmp_path, study={"trials": 3}, sampler={"preset": "random"})
    measure, calls = MergeObjective.measure, iter(range(10**6))

    def broken(self: MergeObjective, *arguments: object) -> Measurement:
        if next(calls) in (1, 2):
            raise EngineError("The engine failed in 'apply' and was started again.")
        return measure(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(MergeObjective, "measure", broken)
    run(load_inputs(path))
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    states = [t.state.name for t in trials]
    assert states.count("COMPLETE") == 3
    assert states.count("FAIL") == 2
    (again,) = [t for t in trials if t.system_attrs.get("retry_history") == [1]]
    assert again.params == trials[1].params
    assert trials[1].user_attrs["failure"].startswith("The engine failed")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no memory"), ValueError("no template")])
def test_seeds_that_failed_in_a_row_are_measured_once_the_cause_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = write_spec(tmp_path, study={"trials": 5}, sampler={"preset": "random"})
    with monkeypatch.context() as patch:

        def broken(*arguments: object) -> None:
            raise error

        patch.setattr(MergeObjective, "measure", broken)
        for _ in range(3):
            with pytest.raises(StudyError, match="3 trials in a row"):
                run(load_inputs(path))
    run(load_inputs(path))
    trials = load_study(StudySpec.from_yaml(path)).get_trials()
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    assert len(complete) == 5
    assert {t.user_attrs["label"] for t in complete if "label" in t.user_attrs} >= {
        "base",
        "expert",
    }


def test_a_full_disk_gives_the_candidate_back_and_spends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_spec(tmp_path, study={"trials": 2}, sampler={"preset": "random"})

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StudyError, match=r"cannot be written .*No space left.*make room"):
            run(load_inputs(path))
    usage = type(shutil.disk_usage(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda directory: usage(2**30, 2**30, 0))
        for _ in range(4):  # an orchestrator that starts it again and again
            with pytest.raises(StudyError, match=r"0\.0 MiB are free"):
                run(load_inputs(path))
    study = load_study(StudySpec.from_yaml(path))
    assert [t.state.name for t in study.get_trials()] == ["FAIL", "WAITING", "WAITING"]
    run(load_inputs(path))
    trials = study.get_trials()
    assert [t.state.name for t in trials] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[0].params


def test_a_worker_that_was_stopped_is_to_be_started_again(tmp_path: Path) -> None:
    path = write_spec(tmp_path, n_questions=320, evaluation={"batch_size": 1})
    init_study(load_inputs(path))
    process = _cli("worker", str(path))
    _wait_for(path, TrialState.RUNNING, 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 143
    states = [t.state for t in load_study(StudySpec.from_yaml(path)).get_trials()]
    assert TrialState.RUNNING not in states


def test_ctrl_c_twice_ends_all_workers_in_good_order(tmp_path: Path) -> None:
    path = write_spec(tmp_path, n_questions=320, evaluation={"batch_size": 1})
    line = [sys.executable, "-m", "mergefront", "run", str(path), "--workers", "2"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    _wait_for(path, TrialState.RUNNING, 2)
    for _ in range(2):  # as a terminal sends it: to all of them
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.2)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    states = [t.state for t in load_study(StudySpec.from_yaml(path)).get_trials()]
    assert TrialState.RUNNING not in states


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ("kill -9 $$", "were killed by SIGKILL (often because no memory was left). Start"),
        ("kill -40 $$", "were killed by signal 40. Start"),
        ("exit 1", "stopped with an error, shown above. Fix the cause. Start the study again"),
    ],
)
def test_how_workers_ended_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, told: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{end}\n")
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    spec = StudySpec.from_yaml(write_spec(tmp_path))
    with pytest.raises(StudyError, match=re.escape(told)):
        run_many(spec, [["worker"], ["worker"]])
