"""What a user sees while a study runs."""

import io
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console

from mergefront.objectives import Measurement
from mergefront.study import StudySpec
from mergefront.study.cli.progress import ConsoleReporter
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
    last = text.getvalue().splitlines()[-1]
    assert "trial   0 of 10  search" in last
    assert "accuracy 0.750 ± 0.020  tokens 12.500 ± 0.500  1.2 s" in last


def test_a_bar_is_drawn_on_terminals_only(tmp_path: Path) -> None:
    for terminal in (False, True):
        reporter, text = _reporter(tmp_path, terminal)
        reporter.started(_trial(), 24)
        reporter.answered(12)
        reporter._close()
        assert ("24" in text.getvalue()) is terminal


def test_a_failure_shows_its_reason_as_it_is(tmp_path: Path) -> None:
    reporter, text = _reporter(tmp_path, terminal=False)
    reporter.started(_trial(), 24)
    reporter.failed(_trial(), "ValueError: [red] is no colour")
    assert "FAIL: ValueError: [red] is no colour" in text.getvalue()


def test_the_summary_says_where_time_went(tmp_path: Path) -> None:
    reporter, text = _reporter(tmp_path, terminal=False)
    reporter.summary(Timings(suggest=5.0, merge=0.25, evaluate=7.5, n_trials=3), 13.4)
    assert text.getvalue() == (
        "3 trials in 13 s: suggest 5.0 s, merge 0.25 s, generate and score 7.5 s\n"
    )
