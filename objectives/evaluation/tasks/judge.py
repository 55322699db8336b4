"""Answers that a model judges: the base itself, so that nothing else need be loaded.

What a judge says is generated like any answer, by the weights of the base, and counts in no
objective. A score is read from its last words.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ....errors import SpecError
from ..backends.backend import Completion, Sampling, final_answer
from .lines import render
from .task import Judge, Question, Task

# What a judge is asked where a task does not say.
JUDGE_PROMPT = (
    "Question:\n{question}\n\nReference answer:\n{reference}\n\nGiven answer:\n{response}\n\n"
    "Is the given answer right, that is, does it say the same as the reference answer? Reason in "
    "a few sentences at most. Then end with a line of its own: `Verdict: yes` or `Verdict: no`."
)
_SCORE = r"(yes|no|1(?:\.0+)?|0(?:\.\d+)?|\.\d+)"
# No share of another scale ("1/10", "1 out of 5", "1 %"), no choice ("yes or no?"), no "-1".
_NO_SCORE = r"(?!\s*(?:[/%]|\(?\s*(?:out\s+)?of\b|or\b)|[\w.,]*\d)"
_VERDICT = re.compile(rf"verdict[^\w-]{{0,10}}{_SCORE}\b{_NO_SCORE}", re.IGNORECASE)
_ALONE = re.compile(_SCORE, re.IGNORECASE)
# What a judge's reply may end with, before or behind its score.
_AROUND = " \t\r\n.*_`\"'"


@dataclass(frozen=True)
class JudgeSource:
    """How a task's judge is asked.

    Args:
        task: Its name, for errors.
        prompt: Template; `{question}`, `{reference}` and `{response}` insert what was asked, the
            reference and the final answer, other names fields of the line.
        max_new_tokens: Of the judge's reply.
        longest: Tokens that an answer may have.
        fits: Whether a prompt of the judge, its reply and so many tokens more fit the model.
    """

    task: str
    prompt: str
    max_new_tokens: int
    longest: int
    fits: Callable[[str, int], bool]


def judged(task: Task, source: JudgeSource) -> Task:
    """Return a task whose answers are judged.

    Raises:
        SpecError: If the prompt lacks the answer, names a field that a line has not, or is too
            long for the model.
    """
    if "{response}" not in source.prompt:
        raise SpecError(
            f"A judge must see the answer, but `judge.prompt` of task {source.task!r} does not "
            "insert {response}."
        )
    for question in (q for questions in task.splits.values() for q in questions):
        _check(source, question)
    judge = Judge(partial(_asked, source), Sampling(source.max_new_tokens))
    identity = json.dumps(["judge", source.prompt, source.max_new_tokens])
    return replace(task, scorer=identity, score=_not_yet, judge=judge)


def verdict(reply: Completion) -> float | None:
    """Return the score within [0, 1] that a judge gives; None if it gives none.

    Its reply's last `Verdict: SCORE`, or all of its reply: a number, `yes` (1) or `no` (0).
    """
    text = (final_answer(reply) or "").strip(_AROUND)
    found = _VERDICT.findall(text)
    alone = _ALONE.fullmatch(text)
    if not found and not alone:
        return None
    said = str(found[-1] if found else text).lower()
    return {"yes": 1.0, "no": 0.0}.get(said) if said.isalpha() else float(said)


def _not_yet(question: Question, completion: Completion) -> float:
    """Return what an answer counts until it is judged, and for ever if there is none."""
    return 0.0


def _asked(source: JudgeSource, question: Question, completion: Completion) -> str | None:
    """Return what a judge is asked; None without a final answer, or where it does not fit."""
    answer = final_answer(completion)
    if answer is None or not answer.strip():
        return None
    prompt = _rendered(source, question, answer)
    return prompt if source.fits(prompt, 0) else None


def _rendered(source: JudgeSource, question: Question, answer: str) -> str:
    # Half a character, which an answer may hold, cannot be written.
    response = answer.encode("utf-8", "replace").decode()
    own = {"question": question.prompt, "reference": question.answer, "response": response}
    return render(source.prompt, {**json.loads(question.row), **own})[0]


def _check(source: JudgeSource, question: Question) -> None:
    try:
        prompt = _rendered(source, question, "0")
    except KeyError as error:
        raise SpecError(
            f"`judge.prompt` of task {source.task!r} inserts {error}, which the line of question "
            f"{question.id!r} has not. Braces that are no field are written {{{{ and }}}}."
        ) from error
    except ValueError as error:
        raise SpecError(f"`judge.prompt` of task {source.task!r}: {error}.") from error
    if not source.fits(prompt, source.longest):
        raise SpecError(
            f"What a judge is asked must fit the model, but question {question.id!r} of task "
            f"{source.task!r} does not, with {source.longest} tokens of an answer and "
            f"{source.max_new_tokens} of the judge. Shorten `judge.prompt`, or lower "
            "`max_new_tokens` or `judge.max_new_tokens`."
        )
