"""What a user sees while a study runs."""

import io
import re
from pathlib import Path
from typing import NoReturn

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console
from sqlalchemy.exc import OperationalError, ProgrammingError

from mergefront.objectives import Measurement
from mergefront.study import StudySpec
from mergefront.study.cli.progress import (
    ConsoleReporter,
    ManyWorkers,
    _Bars,
    _told,
    duration,
    facts,
    summary,
)
from mergefront.study.results.status import status_of
from mergefront.study.storage.connection import load_study
from mergefront.study.workers.worker import Timings
from small_study import write_spec

MEASUREMENT = Measurement((0.75, 12.5), (0.02, 0.5), (), 0.01, 1.25)


def _reporter(tmp_path: Path, terminal: bool) -> tuple[ConsoleReporter, io.StringIO]:
    reporter = ConsoleReporter(StudySpec.from_yaml(write_spec(tmp_path)))
    text = io.StringIO()
    reporter.console = Console(file=text, force_terminal=terminal, width=100, highlight=False)
    return reporter, text


def _trial() -> FrozenTrial:
    trial = create_trial(state=TrialState.RUNNING, user_attrs={"phase": "search"})
    trial.number = 0
    return trial


@pytest.mark.parametrize("terminal", [False, True])
def test_a_finished_trial_is_one_line_with_errors(tmp_path: Path, terminal: bool) -> None:
    reporter, text = _reporter(tmp_path, terminal)
    trial = _trial()
    reporter.started(trial, 24)
    reporter.answered(24)
    reporter.finished(trial, MEASUREMENT)
    assert "trial   0 of 10  search" in text.getvalue()
    assert "accuracy 0.750 ± 0.020  tokens 12.500 ± 0.500  1.2 s" in text.getvalue()


def test_a_bar_is_drawn_on_terminals_only(tmp_path: Path) -> None:
    for terminal in (False, True):
        reporter, text = _reporter(tmp_path, terminal)
        reporter.started(_trial(), 24)
        reporter.answered(12)
        reporter._close()
        assert ("24" in text.getvalue()) is terminal


def test_a_bar_waits_for_a_database_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter, text = _reporter(tmp_path, terminal=True)
    error: Exception = OperationalError("", {}, Exception("Connection refused"))

    def away(spec: StudySpec) -> NoReturn:
        raise error

    monkeypatch.setattr("mergefront.study.cli.progress.load_study", away)
    reporter.started(_trial(), 24)
    reporter.finished(_trial(), MEASUREMENT)
    assert "accuracy 0.750" in text.getvalue()
    error = ProgrammingError("", {}, Exception("permission denied"))
    assert reporter._bars is not None
    with pytest.raises(ProgrammingError):
        reporter._bars.look(at_once=True)


def test_a_failure_shows_its_reason_as_it_is(tmp_path: Path) -> None:
    reporter, text = _reporter(tmp_path, terminal=False)
    reporter.started(_trial(), 24)
    reporter.failed(_trial(), "ValueError: [red] is no colour")
    assert "FAIL: ValueError: [red] is no colour" in text.getvalue()


def test_the_summary_says_where_time_went(capsys: pytest.CaptureFixture[str]) -> None:
    summary(Timings(suggest=5.0, merge=0.25, evaluate=7.5, n_trials=3), 13.4)
    assert capsys.readouterr().err == (
        "3 trials in 13 s: suggest 5.0 s, merge 0.25 s, generate and score 7.5 s\n"
    )


def test_the_bar_says_what_it_costs(finished: Path) -> None:
    spec = StudySpec.from_yaml(finished)
    content = spec.model_dump(mode="json") | {"cost": {"per_hour": 3600.0}}
    priced = StudySpec.parse(content, spec.folder)
    shown = facts(status_of(load_study(priced), priced, 12), priced.metric_names)
    assert re.search(r", cost \d+\.\d\d, at the end \d+\.\d\d to \d+\.\d\d$", shown)


def test_one_screen_for_all_workers(finished: Path) -> None:
    spec = StudySpec.from_yaml(finished).with_overrides(trials=12)
    screen = ManyWorkers(spec)
    text = io.StringIO()
    screen.console = Console(file=text, force_terminal=True, width=100, highlight=False)
    screen._bars = _Bars(spec, screen.console)
    with screen:
        screen.tick()
        screen.said("trial 3 of 12  [red]search")
        screen._bars.progress.refresh()
    shown = text.getvalue()
    assert "10/12" in shown
    assert re.search(r"hypervolume \d+\.\d{3} \[\d+\.\d{3}, \d+\.\d{3}\]", " ".join(shown.split()))
    assert "trial 3 of 12  [red]search\n" in shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0 s"), (45, "45 s"), (144, "2.4 min"), (3600, "60 min"), (9000, "2.5 h")],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_large_values_are_told_without_decimals() -> None:
    assert [_told(0.62812), _told(31.5), _told(998528.0)] == ["0.628", "31.500", "998528"]
