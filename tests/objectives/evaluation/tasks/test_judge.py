"""Answers judged by the base: its weights are swapped in, and the candidate's are back after."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from command import invoke
from mergefront.errors import SpecError
from mergefront.objectives import MergeObjective
from mergefront.objectives.evaluation import METRICS, Completion, Sampling, final_answer
from mergefront.objectives.evaluation.tasks.judge import verdict
from mergefront.study.run import make_objective
from mergefront.study.spec import load_inputs
from mergefront.study.spec.inputs import StudyInputs
from small_study import read_json_lines, write_spec


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("It says the same.\nVerdict: yes", 1.0),
        ("<think>Verdict: yes</think>It is another. **Verdict:** No.", 0.0),
        ("Verdict: no. Wait, I misread it. Verdict: Yes", 1.0),
        ("Verdict: 0.25", 0.25),
        ("verdict: **1.0**", 1.0),
        ("Verdict: .5!", 0.5),
        ("yes", 1.0),
        (" No. ", 0.0),
        ("0.75", 0.75),
        ("", None),
        ("There is no doubt that it might be", None),
        ("Verdict: maybe", None),
        ("Verdict: 7", None),
        ("Verdict: 10", None),
        ("Verdict: 1.5", None),
        ("Verdict: nonsense", None),
        ("Verdict: 1/10", None),
        ("Verdict: 1 out of 5", None),
        ("Verdict: 1 (of 5)", None),
        ("Verdict: -1", None),
        ("Verdict: 1,5", None),
        ("Verdict: 0,5", None),
        ("Verdict: 1 %", None),
        ("Verdict: yes or no? I say no", None),
        ("<think>Verdict: yes", None),
        ("3", None),
        ("yes" * 10_000, None),
    ],
)
def test_a_score_is_read_from_the_judges_last_words(reply: str, score: float | None) -> None:
    assert verdict(Completion(reply, 9, "stop")) == score


def _inputs(folder: Path, **task: Any) -> StudyInputs:
    """A study in which the demo's base is asked the question itself, and 0 or 1 is a verdict."""
    write_spec(folder, 16, evaluation={"max_new_tokens": 40})
    rows = read_json_lines(folder / "search.jsonl")
    (folder / "q.jsonl").write_text(
        "".join(json.dumps({**r, "n": i}) + "\n" for i, r in enumerate(rows))
    )
    judge = {"prompt": "1a+{n}b+{response}?", "max_new_tokens": 8}
    own = {"name": "demo", "files": {"search": "q.jsonl"}, "scorer": "judge", "judge": judge}
    changed = {"max_new_tokens": 40, "tasks": [{**own, **task}]}
    return load_inputs(write_spec(folder, 16, evaluation=changed, study={"trials": 3}))


class _Calls:
    """What a backend is told, in order, by the weights that it has."""

    def __init__(self, objective: MergeObjective, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = objective.backend
        self.generated: list[tuple[str, int]] = []
        apply, generate, now = backend.apply, backend.generate, [""]

        def applied(weights: Mapping[str, Sequence[float]]) -> float:
            now[0] = json.dumps(sorted((k, list(v)) for k, v in weights.items()))
            return apply(weights)

        def generating(prompts: Sequence[str], *more: Any) -> list[Completion]:
            if prompts:
                self.generated.append((now[0], len(prompts)))
            return generate(prompts, *more)

        monkeypatch.setattr(backend, "apply", applied)
        monkeypatch.setattr(backend, "generate", generating)


def test_the_base_judges_and_the_candidate_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = _inputs(tmp_path, cluster="n")
    objective = make_objective(inputs)
    plan, backend = inputs.plan, objective.backend
    candidate, base = plan.uniform(0.6), plan.group_weights(plan.uniform(0.0))
    backend.apply(plan.group_weights(candidate))
    checksum = backend.checksum()
    plain = backend.generate([q.question.prompt for q in objective.questions], Sampling(40))
    backend.apply(base)
    expected: list[float | None] = []
    for completion, asked in zip(plain, objective.questions, strict=True):
        row = json.loads(asked.question.row)
        prompt = f"1a+{row['n']}b+{final_answer(completion)}?"
        (reply,) = backend.generate([prompt], Sampling(8))
        expected.append(verdict(reply))
    nothing = [not (final_answer(completion) or "").strip() for completion in plain]
    expected = [None if n else score for n, score in zip(nothing, expected, strict=True)]
    calls = _Calls(objective, monkeypatch)
    measured = objective.measure(candidate)
    assert backend.checksum() == checksum
    weights = {
        name: json.dumps(sorted((k, list(v)) for k, v in plan.group_weights(p).items()))
        for name, p in (("candidate", candidate), ("base", plan.uniform(0.0)))
    }
    assert [who for who, _ in calls.generated] == [weights["candidate"], weights["base"]]
    by_id = {answer.question_id: answer for answer in measured.answers}
    given = [by_id[asked.question.id] for asked in objective.questions]
    assert [answer.score for answer in given] == [score or 0.0 for score in expected]
    unjudged = [s is None and not n for s, n in zip(expected, nothing, strict=True)]
    assert ["unjudged" in answer.signs for answer in given] == unjudged
    assert any(nothing) and any(unjudged)
    assert {None} < set(expected)  # some are judged, some are not
    # What the judge says is in no objective, and is not asked again.
    assert [answer.n_tokens for answer in given] == [completion.n_tokens for completion in plain]
    assert [METRICS["unjudged"].per_answer(answer) for answer in given] == unjudged
    again = objective.measure(candidate)
    assert (again.answers, len(calls.generated)) == (measured.answers, 2)


def _other(folder: Path) -> StudyInputs:
    return _inputs(folder, judge={"prompt": "{response}", "max_new_tokens": 8})


def test_a_judge_that_seldom_gives_a_verdict_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs = _other(tmp_path)
    objective = make_objective(inputs)
    given = objective.measure(inputs.plan.uniform(0.6)).answers
    assert sum("unjudged" in answer.signs for answer in given) > len(given) / 2
    (line,) = [text for text in caplog.messages if "the judge gave no verdict on" in text]
    assert "which count 0; it said e.g. '" in line


def test_a_study_is_judged_from_start_to_front(tmp_path: Path) -> None:
    inputs = _inputs(tmp_path)
    done = invoke("run", tmp_path / "spec.yaml")
    assert done.exit_code == 0, done.stderr
    assert inputs.fingerprint() != _other(tmp_path).fingerprint()
    refused = invoke("run", tmp_path / "spec.yaml")
    assert (
        refused.exit_code == 1 and "made with other settings: evaluation.tasks" in refused.stderr
    )


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"judge": {"prompt": "right?"}}, r"does not insert \{response\}"),
        ({"judge": {"prompt": "{nobody} {response}"}}, "inserts 'nobody', which the line of"),
        ({"judge": {"prompt": "{n.x} {response}"}}, "inserts whole fields"),
        ({"judge": {"prompt": "{response}", "max_new_tokens": 120}}, "must fit the model"),
        ({"judge": None}, "must fit the model, but question .* Shorten"),  # in 128 positions
        ({"scorer": "math"}, "`judge` belongs to `scorer: judge`, but the scorer is math"),
        ({"judge": {"promt": "{response}"}}, "did you mean 'prompt'"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    tmp_path: Path, task: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        _inputs(tmp_path, **task)


def test_only_the_base_judges(tmp_path: Path) -> None:
    _inputs(tmp_path)
    text = (tmp_path / "spec.yaml").read_text()
    (tmp_path / "spec.yaml").write_text(text.replace("head: search", "head: expert"))
    with pytest.raises(SpecError, match=r"with merge\.head: expert no candidate is the base"):
        load_inputs(tmp_path / "spec.yaml")
