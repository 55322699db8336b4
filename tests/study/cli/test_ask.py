"""`mergefront ask`: the same answers as in the study, from weights swapped in place."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

import mergefront
from mergefront.objectives.evaluation.backends.backend import final_answer
from mergefront.study.cli import app
from mergefront.study.cli.dialogue import Dialogue
from mergefront.study.run import make_objective
from mergefront.study.spec.inputs import load_inputs
from mergefront.study.storage.artifacts import read_answers
from mergefront.study.storage.connection import artifact_store
from small_study import write_spec


def _ask(path: Path, text: str, *trials: int) -> tuple[int, str, str]:
    options = [option for number in trials for option in ("--trial", str(number))]
    done = CliRunner().invoke(app, ["ask", str(path), *options], input=text)
    return done.exit_code, done.stdout, done.stderr


def test_two_trials_answer_as_they_did_in_the_study(finished: Path) -> None:
    study, spec = mergefront.load_study(finished), mergefront.StudySpec.from_yaml(finished)
    store = artifact_store(spec)
    told = {number: read_answers(study, store, number)[:2] for number in (0, 1)}
    questions = [line["question"] for line in told[0]]
    code, shown, said = _ask(finished, "".join(f"{q}\n" for q in questions), 0, 1)
    assert code == 0
    assert "each stands for itself" in said  # the demo's template writes the last message alone
    for place in range(2):
        for number in (0, 1):
            line = told[number][place]
            assert f"trial {number} ({line['n_tokens']} tokens): {line['text']}\n" in shown


def test_without_a_question_or_a_trial_it_says_so(finished: Path) -> None:
    code, _, error = _ask(finished, "", 0)
    assert (code, "one per line" in error) == (1, True)
    code, _, error = _ask(finished, "1+1?", 99)
    assert (code, "0 to 9, but got 99" in error) == (1, True)


# Writes every message; the demo's models know no other tokens.
_ALL = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def talkative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose chat template shows the whole conversation."""
    folder = tmp_path_factory.mktemp("talkative")
    (folder / "all.jinja").write_text(_ALL)
    path = write_spec(folder, n_questions=8, study={"trials": 3}, importance={"kind": "none"})
    content = yaml.safe_load(path.read_text())
    content["models"]["chat_template"] = "all.jinja"
    path.write_text(yaml.safe_dump(content))
    mergefront.run(path)
    return path


def test_each_candidate_remembers_its_own_conversation(talkative: Path) -> None:
    inputs = load_inputs(talkative)
    objective = make_objective(inputs)
    backend = objective.backend
    weights = {0: 0.0, 1: 1.0}
    groups = {n: dict.fromkeys(inputs.plan.groups, (w,)) for n, w in weights.items()}
    dialogue = Dialogue(objective, inputs.sampling, lambda n: groups[n], remembers=True)
    told = {n: [dialogue.ask(n, text) for text in ("1+1?", "2+2?")] for n in (0, 1)}
    for n, (first, second) in told.items():
        said = final_answer(first)
        assert said
        backend.apply(groups[n])
        prompt = f"1+1?{said.lstrip()}2+2?"
        (expected,) = backend.generate([prompt], inputs.sampling)
        assert second == expected
    dialogue.reset()
    assert dialogue.ask(0, "1+1?") == told[0][0]
    backend.close()


def test_commands_change_who_answers_and_what_is_remembered(talkative: Path) -> None:
    text = "1+1?\n2+2?\n/trial 1\n1+1?\n/reset\n/trial 0 1\n1+1?\n"
    code, shown, _ = _ask(talkative, text, 0)
    lines = shown.splitlines()
    assert code == 0
    assert [line.split()[1] for line in lines] == ["0", "0", "1", "0", "1"]
    assert (lines[0], lines[2]) == (lines[3], lines[4])
    alone = _ask(talkative, "2+2?\n", 0)[1].splitlines()
    assert lines[1] != alone[0]  # with what was said before


def test_what_goes_wrong_does_not_end_the_conversation(talkative: Path) -> None:
    code, shown, said = _ask(talkative, f"/trail 1\n/trial 99\n{'1+' * 99}1?\n1+1?\n", 0)
    assert code == 0
    assert len(shown.splitlines()) == 1
    errors = [line for line in said.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 3
    assert "/trail 1 is no command" in errors[0]
    assert "but got 99" in errors[1]
    assert "`/reset` begins anew" in errors[2]


def test_on_a_terminal_two_answers_stand_side_by_side(talkative: Path) -> None:
    import pty

    line = [sys.executable, "-m", "mergefront", "ask", str(talkative)]
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        [*line, "--trial", "0", "--trial", "1"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env={**os.environ, "COLUMNS": "120", "TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    for expected, text in ((b"you: ", b"1+1?\n"), (b"you: ", b"\n")):
        while not shown.endswith(expected):
            shown += os.read(main, 4096)
        shown += b"\n"
        os.write(main, text)
    assert process.wait(timeout=60) == 0
    os.close(main)
    (heads,) = [row for row in shown.decode().splitlines() if "trial 0 (" in row]
    assert "trial 1 (" in heads


# What Python's `input` raises for a key, without a race against the terminal's modes.
_PRESSED = """
import builtins, sys
def pressed(text: str = "") -> str:
    raise {raised}
builtins.input = pressed
from mergefront.study.cli import app
app(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        pytest.param("KeyboardInterrupt", 130, id="Ctrl-C"),
        pytest.param("EOFError", 0, id="Ctrl-D"),
    ],
)
def test_ctrl_c_stops_it_and_ctrl_d_ends_it(talkative: Path, raised: str, code: int) -> None:
    import pty

    main, terminal = pty.openpty()
    line = [sys.executable, "-c", _PRESSED.format(raised=raised), "ask", str(talkative)]
    done = subprocess.run(
        [*line, "--trial", "0"], stdin=terminal, capture_output=True, text=True, timeout=60
    )
    os.close(terminal)
    os.close(main)
    assert done.returncode == code, done.stderr
    assert ("Stopped." in done.stderr) is (code == 130)
