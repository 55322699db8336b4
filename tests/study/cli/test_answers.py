"""`mergefront answers`: what the trials answered, question by question."""

import json
from pathlib import Path

import mergefront
from command import invoke
from mergefront.examples.demo import QUESTIONS
from mergefront.study.storage.artifacts import read_answers
from mergefront.study.storage.connection import artifact_store


def test_answers_stand_beside_question_and_reference(finished: Path) -> None:
    shown = invoke("answers", finished, "--trials", 0, 1, "--limit", 24, "--format", "json")
    content = json.loads(shown.stdout)
    assert content["trials"] == [0, 1]
    asked = [json.loads(line) for line in (QUESTIONS / "search.jsonl").read_text().splitlines()]
    known = {question["prompt"]: question["answer"] for question in asked}
    assert len(content["questions"]) == 24
    for row in content["questions"]:
        assert known[row["question"]] == row["reference"]
        assert list(row["answers"]) == ["0", "1"]
    # Where the two differ comes first.
    given = [row["answers"].values() for row in content["questions"]]
    same = [len({answers[0]["score"] for answers in row}) == 1 for row in given]
    assert same == sorted(same)
    study = mergefront.load_study(finished)
    scores = [row["answers"]["1"][0]["score"] for row in content["questions"]]
    assert sum(scores) / 24 == study.trials[1].values[0]
    table = invoke("answers", finished, "--trials", 0, 1, "--limit", 2).stdout
    assert table.count("  reference   ") == 2
    assert table.endswith("2 of 24 questions\n")


def test_the_artifact_itself_holds_question_and_reference(finished: Path) -> None:
    spec = mergefront.StudySpec.from_yaml(finished)
    (line, *_) = read_answers(mergefront.load_study(finished), artifact_store(spec), 9)
    assert {"question", "reference", "text", "score", "n_tokens"} <= line.keys()


def test_what_is_not_there_is_said(finished: Path) -> None:
    for arguments, message in (((), "--trials 0 51"), (("--trials", 99), "0 to 9")):
        done = invoke("answers", finished, *arguments)
        assert (done.exit_code, message in done.stderr) == (1, True)
