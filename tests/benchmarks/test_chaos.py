"""The checks of `make chaos` find what they are for."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mergefront.study.seeding import init_study
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.spec.study_spec import StudySpec
from mergefront.study.storage.ledger import Ending, Ledger
from processes import Program
from small_study import write_spec

Finished = tuple[StudySpec, optuna.Study, Any]


@pytest.fixture
def finished_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A study of eight trials, each measured once, and a herd that says so."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks" / "chaos")
    inputs = load_inputs(write_spec(tmp_path, 2, study={"trials": 8}))
    study = init_study(inputs)
    ledger, log = Ledger(study), tmp_path / "measured.jsonl"
    for trial in study.get_trials():
        values = [trial.number + 0.25, trial.number + 0.5]
        with ledger.engine.begin() as connection:
            ledger.take(connection, trial, {"worker": "w"})
            ledger.end(connection, trial._trial_id, Ending(TrialState.COMPLETE, values))
        row = {"number": trial.number, "worker": "w", "values": values}
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
    herd = SimpleNamespace(log=log, folder=tmp_path, events=Counter())
    return inputs.spec, study, herd


def test_a_study_that_lost_nothing_is_good(finished_light: Finished) -> None:
    from checks import check

    spec, _, herd = finished_light
    loss = check(spec, herd, 1.0)
    assert not loss.bad
    assert str(loss).endswith("lost: nothing")


@pytest.mark.parametrize(
    "what",
    ["results that are nowhere", "values that nobody measured", "undelivered results"],
)
def test_what_is_lost_is_found(finished_light: Finished, what: str) -> None:
    from checks import check

    spec, _, herd = finished_light
    rows = herd.log.read_text().splitlines()
    if what == "results that are nowhere":
        extra = {"number": 3, "worker": "w", "values": [9.0, 9.0]}
        herd.log.write_text("\n".join([*rows, json.dumps(extra)]))
    elif what == "values that nobody measured":
        herd.log.write_text("\n".join(rows[1:]))
    else:
        (herd.folder / "small.state" / "spool").mkdir(parents=True)
        (herd.folder / "small.state" / "spool" / "trial-00001-w.json").touch()
    loss = check(spec, herd, 1.0)
    assert loss.bad
    assert loss.lost == Counter({what: 1})


def test_the_light_worker_is_a_worker(tmp_path: Path) -> None:
    path = write_spec(tmp_path, 2, study={"trials": 3}, sampler={"preset": "random"})
    init_study(load_inputs(path))
    program = Path(__file__).parents[2] / "benchmarks" / "chaos" / "light_worker.py"
    log = tmp_path / "measured.jsonl"
    assert Program(program.read_text(), str(log), "worker", str(path)).wait(120) == 0
    assert len(log.read_text().splitlines()) == 3
