"""Conversations with candidates: each remembers its own, and answers from weights swapped in."""

from collections.abc import Callable, Mapping, Sequence

from ...errors import EvaluationError
from ...objectives import MergeObjective
from ...objectives.evaluation import Completion, Sampling
from ...objectives.evaluation.backends.backend import final_answer

Weights = Mapping[str, Sequence[float]]


class Dialogue:
    """Asks candidates one after another; a candidate's weights stay until another's turn.

    Args:
        objective: Its backend loaded.
        sampling: How answers are drawn.
        weights_of: Gives a trial's weights by its number.
        remembers: Whether a question is asked with all that was said before; else it stands for
            itself.
    """

    def __init__(
        self,
        objective: MergeObjective,
        sampling: Sampling,
        weights_of: Callable[[int], Weights],
        remembers: bool,
    ) -> None:
        self._objective, self._sampling = objective, sampling
        self._weights_of, self._remembers = weights_of, remembers
        self._told: dict[int, list[dict[str, str]]] = {}
        self._loaded: int | None = None

    def ask(self, number: int, question: str) -> Completion:
        """Return a trial's answer, and keep both.

        What is kept of an answer is what follows its reasoning, as chat programs do.

        Raises:
            StudyError: If there is no such trial.
            EvaluationError: If the conversation does not fit the model; it stays as it was.
        """
        self._load(number)
        asked = {"role": "user", "content": question}
        messages = [*self._told.get(number, []), asked]
        seeds = (self._sampling.seed_of(question, len(messages)),)
        prompt = messages if self._remembers else question
        backend, drawn = self._objective.backend, self._sampling.is_random
        try:
            (answer,) = backend.generate([prompt], self._sampling, None, seeds if drawn else ())
        except EvaluationError as error:
            raise EvaluationError(f"{error} `/reset` begins anew.") from error
        final = final_answer(answer)
        said = answer.text if final is None else final.lstrip()
        self._told[number] = [*messages, {"role": "assistant", "content": said}]
        return answer

    def check(self, number: int) -> None:
        """Check that a trial can be asked.

        Raises:
            StudyError: If there is no such trial.
        """
        self._weights_of(number)

    def _load(self, number: int) -> None:
        if number != self._loaded:
            self._objective.backend.apply(self._weights_of(number))
            self._loaded = number

    def reset(self) -> None:
        """Forget what was said to anybody."""
        self._told.clear()
