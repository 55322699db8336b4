"""`mergefront ask`: the same answers as in the study, from weights swapped in place."""

from pathlib import Path

from typer.testing import CliRunner

import mergefront
from mergefront.study.cli import app
from mergefront.study.storage.artifacts import read_answers
from mergefront.study.storage.connection import artifact_store


def _ask(path: Path, text: str, *trials: int) -> tuple[int, str, str]:
    options = [option for number in trials for option in ("--trial", str(number))]
    done = CliRunner().invoke(app, ["ask", str(path), *options], input=text)
    return done.exit_code, done.stdout, done.stderr


def test_two_trials_answer_as_they_did_in_the_study(finished: Path) -> None:
    study, spec = mergefront.load_study(finished), mergefront.StudySpec.from_yaml(finished)
    store = artifact_store(spec)
    told = {number: read_answers(study, store, number)[:2] for number in (0, 1)}
    questions = [line["question"] for line in told[0]]
    code, shown, _ = _ask(finished, "".join(f"{q}\n" for q in questions), 0, 1)
    assert code == 0
    for place in range(2):
        for number in (0, 1):
            line = told[number][place]
            assert f"trial {number} ({line['n_tokens']} tokens): {line['text']}\n" in shown


def test_without_a_question_or_a_trial_it_says_so(finished: Path) -> None:
    code, _, error = _ask(finished, "", 0)
    assert (code, "one per line" in error) == (1, True)
    code, _, error = _ask(finished, "1+1?", 99)
    assert (code, "0 to 9, but got 99" in error) == (1, True)
