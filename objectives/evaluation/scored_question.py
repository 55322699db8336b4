"""A question with what its task knows of it: how it is asked, and what an answer counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from .backends import Completion, Sampling
from .backends.backend import Kind
from .diagnosis import signs_of
from .metrics import Answer
from .tasks import Question, Task
from .tasks.task import Judge


@dataclass(frozen=True)
class ScoredQuestion:
    """A question with what its task knows of it.

    Args:
        question: Its id begins with the task's name.
        task: Name of the task.
        score: From an answer to a number, 1 for right.
        sampling: How it is answered. Defaults to None: as the objective says.
        together: From all answers to it to the number that each counts, where repeats vote.
            Defaults to None: each is scored alone.
        judge: Gives its answers their scores. Defaults to None: `score` does.
    """

    question: Question
    task: str
    score: Callable[[Completion], float]
    sampling: Sampling | None = None
    together: Callable[[Sequence[Completion]], float] | None = None
    judge: Judge | None = None

    @property
    def kind(self) -> Kind:
        """What is done with it."""
        if self.question.is_text:
            return "read"
        return "compared" if self.question.pairs else "generated"

    def all_answered(self, completions: Sequence[Completion]) -> list[Answer]:
        """Return what all answers to it contribute, one a repeat."""
        answers = [self.answered(each, repeat) for repeat, each in enumerate(completions)]
        if self.together is None:
            return answers
        score = self.together(completions)
        return [replace(answer, score=score) for answer in answers]

    def answered(self, completion: Completion, repeat: int = 0) -> Answer:
        """Return what an answer to it contributes."""
        made = self.kind == "generated"
        return Answer(
            self.question.id,
            self.task,
            self.score(completion),
            completion.n_tokens,
            completion.finish_reason,
            completion.text,
            completion.n_think_tokens,
            round(completion.seconds, 6),
            repeat,
            self.question.cluster,
            signs_of(completion, self.question.prompt) if made else (),
        )


def questions_of(tasks: Sequence[Task], split: str) -> list[ScoredQuestion]:
    """Return one split's questions of all tasks; ids are prefixed by the task's name."""
    return [
        ScoredQuestion(
            replace(q, id=f"{task.name}/{q.id}"),
            task.name,
            partial(task.score, q),
            task.sampling,
            None if task.together is None else partial(task.together, q),
            task.judge,
        )
        for task in tasks
        for q in task.splits.get(split, ())  # type: ignore[call-overload]
    ]


def with_verdict(answer: Answer, score: float | None) -> Answer:
    """Return an answer with the score that its judge gives.

    Args:
        answer: Not yet judged.
        score: None if the judge gave none: it counts 0, and is known as `unjudged` if there was
            something to judge.
    """
    if score is not None:
        return replace(answer, score=score)
    nothing = {"empty", "unfinished"} & {*answer.signs}
    return replace(answer, signs=answer.signs if nothing else (*answer.signs, "unjudged"))
