"""Texts of users, models and errors: shown as they are, never run as HTML, markup or formulas."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from optuna.trial import FrozenTrial, TrialState, create_trial

from command import invoke
from dashboards import served, wait_for_graphs
from mergefront.examples.demo import BASE
from mergefront.study import StudySpec
from mergefront.study.results.front import front_report
from mergefront.study.results.report.dashboard import study_note
from mergefront.study.results.report.figures import axis_label, plain
from mergefront.study.results.report.front_figures import plot_front
from mergefront.study.run import run
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import write_spec

SCRIPT = "<img src=nowhere onerror=\"document.body.dataset.owned='yes'\">"
# Backticks leave code, a line of them ends a block of it.
MODEL = f"`{SCRIPT}``` & <b>base"
SYSTEM = f"Be brief.\n   ```\n{SCRIPT}\n\n# {SCRIPT}"
# Markup of terminals in brackets, a formula that never ends between dollar signs.
TASK = "<b>`demo`[stem]$x_{$"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The spec of a study in which every text that is a user's is HTML."""
    folder = tmp_path_factory.mktemp("hostile")
    shutil.copytree(BASE, folder / MODEL)
    path = write_spec(
        folder,
        n_questions=8,
        study={"trials": 4},
        models={"base": str(folder / MODEL)},
        importance={"kind": "none"},
        sampler={"preset": "random", "n_startup_trials": 4},
        evaluation={
            "chat": {"system": SYSTEM},
            "tasks": [
                {
                    "name": TASK,
                    "files": {"search": "search.jsonl", "validation": "validation.jsonl"},
                }
            ],
        },
    )
    content = yaml.safe_load(path.read_text())
    content["objectives"][0]["metric"] = f"accuracy/{TASK}"
    path.write_text(yaml.safe_dump(content))
    inputs = load_inputs(path)
    run(inputs)
    study = load_study(inputs.spec)
    told = {"failure": SCRIPT, "label": SCRIPT, "phase": "search"}
    study.add_trial(_like(study.trials[-1], TrialState.FAIL, told))
    told["standard_errors"] = [0.1, 1.0]  # type: ignore[assignment]
    study.add_trial(_like(study.trials[-2], TrialState.COMPLETE, told))
    return path


def _like(trial: FrozenTrial, state: TrialState, told: dict[str, Any]) -> FrozenTrial:
    made = create_trial(
        state=state,
        values=trial.values if state == TrialState.COMPLETE else None,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=told,
    )
    assert trial.datetime_complete is not None
    made.datetime_start = trial.datetime_complete
    made.datetime_complete = trial.datetime_complete + timedelta(seconds=1)
    return made


def test_the_note_is_text_in_any_reader_of_markdown(hostile: Path) -> None:
    inputs = load_inputs(hostile)
    tokens = MarkdownIt("commonmark").parse(study_note(load_study(inputs.spec)))
    inline = [child for token in tokens for child in token.children or ()]
    assert not [t.content for t in (*tokens, *inline) if t.type in ("html_block", "html_inline")]
    assert str(inputs.spec.models.base) in [t.content for t in inline if t.type == "code_inline"]
    (spec,) = [token.content for token in tokens if token.type == "fence"]
    assert SCRIPT in spec.replace("\n", " ") or "onerror" in spec
    assert len([token for token in tokens if token.type == "heading_open"]) == 1


@pytest.mark.parametrize("command", ["front", "pick", "validate"])
def test_tables_show_names_whole(hostile: Path, command: str) -> None:
    result = invoke(command, hostile)
    assert result.exit_code == 0, result.output
    assert f"accuracy/{TASK}" in result.stdout


def test_pictures_show_names_as_they_are(hostile: Path, tmp_path: Path) -> None:
    result = invoke("report", hostile, "--out", tmp_path / "report")
    assert result.exit_code == 0, result.output
    spec = StudySpec.from_yaml(hostile)
    figure = plot_front(front_report(load_study(spec), spec))
    figure.canvas.draw()
    assert figure.axes[0].get_ylabel() == plain(axis_label(f"accuracy/{TASK}"))
    assert plain(TASK) == TASK.replace("$", "\\$")


def test_a_browser_runs_nothing_of_it(hostile: Path, browser: Any) -> None:
    with served(hostile) as url:
        wait_for_graphs(url)
        for page in ("", "/note", "/trialTable", "/trials", "/analytics"):
            opened = browser.new_page()
            opened.goto(f"{url}/dashboard/studies/1{page}")
            opened.wait_for_load_state("networkidle")
            opened.wait_for_timeout(1000)
            assert opened.evaluate("document.body.innerText.length") > 100
            assert opened.evaluate("document.querySelectorAll('img[src=nowhere]').length") == 0
            assert opened.evaluate("document.body.dataset.owned ?? 'no'") == "no"
            if page == "/note":
                assert str(hostile.parent / MODEL) in opened.locator("code").all_inner_texts()
            opened.close()
