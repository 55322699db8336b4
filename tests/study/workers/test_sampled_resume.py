"""Sampled answers: a worker is killed in the middle of an evaluation, and others go on."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mergefront.study import StudySpec
from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.artifacts import read_answers
from mergefront.study.storage.connection import artifact_store, load_study
from postgres import Server
from processes import Program
from small_study import write_spec

TRIALS, N_QUESTIONS, REPEATS = 6, 12, 4
N_ANSWERS = N_QUESTIONS * REPEATS

# A worker that writes down each answer that it generates once it is on disk, and ends itself by
# SIGKILL after so many of one evaluation.
_WORKER = """
import os, signal, sys
from mergefront.objectives.evaluation import cache
from mergefront.study.cli import app

*arguments, log, last = sys.argv
cache._COMMIT_SECONDS = 0.0
keep, counts = cache.AnswerCache.keep, {}

def kept(self, candidate, prompt, completion, seed=None):
    keep(self, candidate, prompt, completion, seed)
    counts[candidate] = counts.get(candidate, 0) + 1
    with open(log, "a") as file:
        file.write(f"{candidate.hex()} {seed} {completion.n_tokens} {os.getpid()}\\n")
    if counts[candidate] == int(last):
        os.kill(os.getpid(), signal.SIGKILL)

cache.AnswerCache.keep = kept
sys.argv = ["mergefront", *arguments[1:]]
app()
"""


def _spec(folder: Path, storage: str, batch_size: int) -> Path:
    """A study of parents and uniform merges: the same for any workers."""
    return write_spec(
        folder,
        N_QUESTIONS,
        study={
            "storage": storage,
            "trials": TRIALS,
            "heartbeat_seconds": 0.5,
            "grace_seconds": 4,
        },
        sampler={"n_startup_trials": 6},
        evaluation={
            "batch_size": batch_size,
            "sampling": {"temperature": 0.7, "repeats": REPEATS},
        },
    )


def _worker(path: Path, log: Path, last: int) -> Program:
    return Program(_WORKER, "worker", str(path), str(log), str(last), folder=path.parent)


def _generated(log: Path) -> list[list[str]]:
    """Return candidate, seed, tokens and process of each generated answer."""
    return [line.split() for line in log.read_text().splitlines()]


def _answers(path: Path, study: optuna.Study) -> dict[str, list[Any]]:
    """Return all answers of all candidates, by their weights."""
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    store = artifact_store(StudySpec.from_yaml(path))
    kept = ("question_id", "repeat", "score", "n_tokens", "finish_reason", "text")
    return {
        json.dumps(sorted(trial.params.items())): [
            [row[key] for key in kept] for row in read_answers(study, store, trial.number)
        ]
        for trial in complete
    }


def test_after_a_kill_nothing_is_generated_twice_and_answers_are_the_same(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, logs = {}, {}
    for name, batch_size, last in (("alone", 64, (0,)), ("killed", 5, (N_ANSWERS // 3, 0, 0))):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        path = _spec(folder, postgres.new_database(), batch_size)
        init_study(load_inputs(path))
        logs[name] = folder / "generated"
        workers = [_worker(path, logs[name], after) for after in last]
        codes = [worker.wait(timeout=300) for worker in workers]
        assert codes == [-signal.SIGKILL if after else 0 for after in last]
        study = load_study(StudySpec.from_yaml(path))
        states = Counter(trial.state for trial in study.get_trials())
        assert states == {TrialState.COMPLETE: TRIALS, **({TrialState.FAIL: 1} if last[0] else {})}
        answers[name] = _answers(path, study)
    # Whatever the batch size, the number of workers and the kill.
    assert answers["alone"] == answers["killed"]
    assert {len(rows) for rows in answers["alone"].values()} == {N_ANSWERS}
    told: dict[tuple[str, str], set[str]] = {}
    for candidate, rows in answers["alone"].items():
        for row in rows:
            told.setdefault((candidate, row[0]), set()).add(row[-1])
    # They are drawn: of many questions the repeats' answers differ.
    assert sum(len(texts) > 1 for texts in told.values()) > N_QUESTIONS
    generated = {name: _generated(log) for name, log in logs.items()}
    for rows in generated.values():
        each = Counter((candidate, seed) for candidate, seed, _, _ in rows)
        assert len(rows) == len(each) == TRIALS * N_ANSWERS
    killed = generated["killed"]
    assert Counter(pid for *_, pid in killed).most_common()[-1][1] >= N_ANSWERS // 3
    tokens = {name: sum(int(row[2]) for row in rows) for name, rows in generated.items()}
    assert tokens["alone"] == tokens["killed"]
