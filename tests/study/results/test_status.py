"""How far a study is, who works on it, what failed."""

import datetime
import json
import re
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from mergefront.study import StudySpec
from mergefront.study.first_trials import search_space
from mergefront.study.results.status import busy_seconds, measured_hypervolume, status_of
from mergefront.study.seeding import BUDGET, init_study
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.ledger import Ending
from mergefront.study.workers.claims import Claims
from small_study import write_spec


def _study(tmp_path: Path, url: str) -> tuple[optuna.Study, StudySpec, Claims]:
    inputs = load_inputs(write_spec(tmp_path, study={"storage": url}))
    study = init_study(inputs)
    return study, inputs.spec, Claims(study, 10, search_space(inputs.spec, inputs.plan))


def test_a_study_in_work(
    tmp_path: Path, storage_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study, spec, claims = _study(tmp_path, storage_url)
    ledger = claims.ledger
    with ledger.engine.connect() as connection:
        for worker in ("one", "one", "one", "two"):
            claims.claim(connection, {"worker": worker})
        with connection.begin():
            failed = Ending(TrialState.FAIL, user_attrs={"failure": "out of memory"})
            ledger.end(connection, study.trials[0]._trial_id, failed)
            for number in (1, 2):
                done = Ending(TrialState.COMPLETE, [1.0, 2.0], {"generated_tokens": 7})
                ledger.end(connection, study.trials[number]._trial_id, done)
    status = status_of(study, spec)
    assert status.counts["complete"] == 2
    assert status.counts["waiting"] == 4
    assert status.failures == ((0, "out of memory"),)
    (running,) = status.running
    assert (running.number, running.worker) == (3, "two")
    assert 0 <= running.silence < 60
    assert status.workers == 1
    assert status.generated_tokens == 14
    assert status.trials_per_hour is not None
    assert status.hours_left == pytest.approx(8 / status.trials_per_hour)
    assert status_of(study, spec, 4).hours_left == pytest.approx(2 / status.trials_per_hour)
    study.set_user_attr(BUDGET, 12)
    assert status_of(study, spec).budget == 12
    assert status_of(study, spec, 1).budget == 2  # never fewer than there are


def _trial(start: float, end: float) -> FrozenTrial:
    trial = create_trial(state=TrialState.COMPLETE, values=[0.0, 0.0])
    begin = datetime.datetime(2026, 1, 1)
    trial.datetime_start = begin + datetime.timedelta(seconds=start)
    trial.datetime_complete = begin + datetime.timedelta(seconds=end)
    return trial


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0.0),
        ([(0, 10)], 10.0),
        ([(0, 10), (12, 20)], 20.0),  # two seconds of proposing
        ([(0, 10), (5000, 5010)], 20.0),  # a pause between two sessions
        ([(0, 10), (2, 14), (3, 5)], 14.0),  # several workers
    ],
)
def test_a_pause_is_no_work(spans: list[tuple[float, float]], seconds: float) -> None:
    assert busy_seconds([_trial(*span) for span in spans]) == seconds


def test_a_study_that_has_not_begun(tmp_path: Path) -> None:
    study, spec, _ = _study(tmp_path, f"sqlite:///{tmp_path}/study.db")
    status = status_of(study, spec)
    assert (status.workers, status.running, status.trials_per_hour) == (0, (), None)


def test_the_table_and_json_say_the_same(finished: Path) -> None:
    from typer.testing import CliRunner

    from mergefront.study.cli import app

    table = CliRunner().invoke(app, ["status", str(finished), "--watch"]).stdout
    content = json.loads(
        CliRunner().invoke(app, ["status", str(finished), "--format", "json"]).stdout
    )
    assert re.search(r"complete +10 of 10", table)
    assert (content["complete"], content["budget"], content["running"]) == (10, 10, 0)
    assert (content["in_hand"], content["failures"], content["last_failure"]) == ([], [], None)
    assert content["hours_left"] == 0


@pytest.mark.parametrize("violation", [-1.0, 1.0])
def test_a_hypervolume_is_shown_where_the_parents_break_a_constraint(
    tmp_path: Path, violation: float
) -> None:
    spec = StudySpec.from_yaml(write_spec(tmp_path))
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.set_metric_names(["accuracy", "tokens"])
    x = FloatDistribution(0, 1)
    for number, (phase, values) in enumerate(
        [("parent", [0.2, 10.0]), ("parent", [0.8, 100.0]), ("search", [0.7, 40.0])]
    ):
        study.add_trial(
            create_trial(
                params={"x": number / 2},
                distributions={"x": x},
                values=values,
                user_attrs={"phase": phase, "label": str(number)},
                constraints={"memory <= 4e9": violation if phase == "parent" else -1.0},
            )
        )
    # The one that may be taken, from a tenth of the parents' range beyond the worse parent.
    alone = (0.7 - 0.14) * (109.0 - 40.0)
    found = measured_hypervolume(study, spec)
    assert found is not None
    assert found >= alone - 1e-9
    assert (found == pytest.approx(alone)) == (violation > 0)
