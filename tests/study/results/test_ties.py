"""What a report says beside the front: tied models, signs of trouble, warnings."""

import json
import re
import shutil
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from command import invoke
from mergefront.examples.demo import BASE, EXPERT
from mergefront.study import StudySpec
from mergefront.study.results.front import front_report
from mergefront.study.results.front_table import signs_of_trial, tied_sets
from mergefront.study.results.report.page import write_report
from mergefront.study.run import run
from mergefront.study.spec import load_inputs
from mergefront.study.storage.connection import load_study
from small_study import write_spec


def _trial(number: int, accuracy: float, tokens: float, error: float = 0.01) -> FrozenTrial:
    trial = optuna.trial.create_trial(values=[accuracy, tokens])
    trial.number = number
    trial.user_attrs = {"denoised": [accuracy, tokens], "denoised_errors": [error, 1.0]}
    return trial


def test_neighbours_within_their_errors_are_tied() -> None:
    # 1.96 * sqrt(2) * 0.01 = 0.0277 of accuracy, 2.77 tokens
    front = [_trial(7, 0.9, 30), _trial(3, 0.88, 28), _trial(5, 0.86, 26), _trial(1, 0.5, 3)]
    assert tied_sets(front) == [[7, 3], [3, 5]]
    assert tied_sets([*front[:2], front[3]]) == [[7, 3]]
    assert tied_sets(front[2:]) == tied_sets([]) == []
    assert tied_sets([_trial(k, 0.5 + 0.001 * k, 9) for k in range(3)]) == [[0, 1, 2]]


def test_signs_are_counted_among_answers() -> None:
    trial = _trial(0, 0.5, 9)
    counts, n = signs_of_trial(trial)
    assert (set(counts.values()), n) == ({0}, 0)
    trial.user_attrs |= {"finish_reasons": {"stop": 3, "length": 1}, "diagnosis": {"empty": 0.5}}
    counts, n = signs_of_trial(trial)
    assert (counts["truncation"], counts["empty"], counts["repetition"], n) == (1, 2, 0, 4)


def test_report_and_front_say_what_to_beware_of(tmp_path: Path) -> None:
    expert = tmp_path / "expert"
    shutil.copytree(EXPERT, expert)
    config = expert / "generation_config.json"
    content = {**json.loads(config.read_text()), "do_sample": True, "temperature": 0.6}
    config.write_text(json.dumps(content))
    models = {"base": str(BASE), "experts": [str(expert)], "dtype": "float32"}
    path = write_spec(tmp_path, n_questions=8, study={"trials": 5}, models=models)
    text = path.read_text().replace("max_new_tokens: 48", "max_new_tokens: 24")
    path.write_text(text)
    run(load_inputs(path))
    spec = StudySpec.from_yaml(path)
    report = front_report(load_study(spec), spec)
    shown = invoke("front", str(path))
    assert "warning: answers are greedy, but the expert's generation_config.json" in shown.stderr
    assert ("cannot be told apart" in shown.stdout) == bool(report.tied)
    told = json.loads(invoke("front", str(path), "--format", "json").stdout)
    assert told["tied"] == report.tied and told["warning"] == report.warning
    page = write_report(load_study(spec), spec, tmp_path / "page")[0].read_text()
    assert "<b>Warning:</b> answers are greedy" in page
    for sign in signs_of_trial(report.trials[0])[0]:
        found = [signs_of_trial(trial)[0][sign] for trial in report.trials]
        column = re.search(f"<button[^>]*>{sign.replace('_', ' ')}</button>", page)
        assert (column is not None) == any(found)
        assert all(f'data-value="{n / 8}">{n} of 8</td>' in page for n in found if n)
    assert ("share a letter under" in page) == bool(report.tied)
