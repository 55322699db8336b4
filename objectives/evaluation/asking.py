"""Put questions to a model: generate, compare likelihoods or read texts, and keep what it says."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from .backends import Backend, Completion, Finished, Sampling
from .backends.backend import Kind, as_answer, as_text_answer
from .backends.likelihood import Likelihood, Reading, likelihoods_in
from .cache import AnswerCache
from .diagnosis import signs_of
from .metrics import Answer
from .tasks import Question, Task

# Called with the number of questions answered since the last call.
Progress = Callable[[int], None]
# For every group of the merge plan, one number per expert.
Weights = Mapping[str, Sequence[float]]
# How texts are read: nothing is generated.
_READ = Sampling(0, chat=False)


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
    """

    question: Question
    task: str
    score: Callable[[Completion], float]
    sampling: Sampling | None = None
    together: Callable[[Sequence[Completion]], float] | None = None

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
        )
        for task in tasks
        for q in task.splits.get(split, ())  # type: ignore[call-overload]
    ]


@dataclass(frozen=True)
class Interviewer:
    """Asks a model that is in its engine already; what is known is not asked again.

    Args:
        backend: Loaded.
        sampling: Generation settings of questions that have none of their own.
        cache: Of answers. Defaults to None: all are generated.
    """

    backend: Backend
    sampling: Sampling
    cache: AnswerCache | None = None

    def ask(
        self, weights: Weights, questions: Mapping[int, ScoredQuestion], progress: Progress
    ) -> tuple[dict[int, list[Answer]], int]:
        """Return the answers to questions, by their places, and how many of them were known.

        Args:
            weights: Of the model, for the cache.
            questions: By place; none of them a text.
            progress: Called with the number of questions answered since the last call.
        """
        answers: dict[int, list[Answer]] = {}
        n_cached = 0
        for sampling, places in self._by_sampling(questions).items():
            asked = [(place, repeat) for place in places for repeat in range(sampling.repeats)]
            answer = self._generate if sampling.generates else self._compare
            single = [(questions[place].question, repeat) for place, repeat in asked]
            completions, n_known = answer(weights, single, sampling, progress)
            given: dict[int, list[Completion]] = {place: [] for place in places}
            for (place, _), completion in zip(asked, completions, strict=True):
                given[place].append(completion)
            answers |= {place: questions[place].all_answered(own) for place, own in given.items()}
            n_cached += n_known
        return answers, n_cached

    def read(
        self,
        weights: Weights,
        texts: Sequence[ScoredQuestion],
        parents: Sequence[int],
        progress: Progress,
    ) -> tuple[list[Answer], int]:
        """Return how texts are read, as answers, and how many of them were known.

        Args:
            weights: Of the model, for the cache.
            texts: Questions of tasks that read.
            parents: Whose divergence is wanted: 0 the base, 1 the first expert.
            progress: Called with the number of texts read since the last call.
        """
        if not texts:
            return [], 0
        asked = [scored.question.prompt for scored in texts]
        window = self.backend.text_window
        names = [json.dumps(["text", window, list(parents), text]) for text in asked]
        read = self.backend.read

        def run(
            left: Sequence[int], keep: Callable[[int, Completion], None]
        ) -> Sequence[Completion]:
            def finished(index: int, reading: Reading) -> None:
                keep(index, as_text_answer(reading))

            found = read([asked[place] for place in left], parents, finished)
            return [as_text_answer(reading) for reading in found]

        completions, n_known = self._through_cache(weights, _READ, names, [], run)
        progress(len(texts))
        made = zip(texts, completions, strict=True)
        return [scored.answered(completion) for scored, completion in made], n_known

    def _by_sampling(self, questions: Mapping[int, ScoredQuestion]) -> dict[Sampling, list[int]]:
        places: dict[Sampling, list[int]] = {}
        for place, scored in questions.items():
            places.setdefault(scored.sampling or self.sampling, []).append(place)
        return places

    def _generate(
        self,
        weights: Weights,
        asked: Sequence[tuple[Question, int]],
        sampling: Sampling,
        progress: Progress,
    ) -> tuple[list[Completion], int]:
        """Return the answers to questions and repeats of them, and how many were known."""
        prompts = [question.prompt for question, _ in asked]
        seeds: list[int] = []
        if sampling.is_random:
            seeds = [sampling.seed_of(question.id, repeat) for question, repeat in asked]

        def run(
            left: Sequence[int], keep: Callable[[int, Completion], None]
        ) -> Sequence[Completion]:
            if len(left) < len(prompts):
                progress(len(prompts) - len(left))

            def finished(index: int, completion: Completion) -> None:
                keep(index, completion)
                progress(1)

            drawn = [seeds[place] for place in left] if seeds else []
            return self._engine_answers([prompts[i] for i in left], sampling, finished, drawn)

        return self._through_cache(weights, sampling, prompts, seeds, run)

    def _compare(
        self,
        weights: Weights,
        asked: Sequence[tuple[Question, int]],
        sampling: Sampling,
        progress: Progress,
    ) -> tuple[list[Completion], int]:
        """Return likelihoods as answers of no tokens, and how many questions' were known."""
        pairs = [question.pairs for question, _ in asked]
        flat = list(dict.fromkeys(pair for own in pairs for pair in own))
        missing: list[int] = []

        def run(
            left: Sequence[int], keep: Callable[[int, Completion], None]
        ) -> Sequence[Completion]:
            missing.extend(left)

            def finished(index: int, likelihood: Likelihood) -> None:
                keep(index, as_answer([likelihood]))

            found = self.backend.loglikelihood([flat[i] for i in left], finished)
            return [as_answer([likelihood]) for likelihood in found]

        names = [json.dumps(pair) for pair in flat]
        completions, _ = self._through_cache(weights, sampling, names, [], run)
        told = {
            pair: likelihoods_in(completion.text)[0]
            for pair, completion in zip(flat, completions, strict=True)
        }
        progress(len(asked))
        unknown = {flat[i] for i in missing}
        n_known = sum(not unknown.intersection(own) for own in pairs)
        return [as_answer([told[pair] for pair in own]) for own in pairs], n_known

    def _through_cache(
        self,
        weights: Weights,
        sampling: Sampling,
        names: Sequence[str],
        seeds: Sequence[int],
        run: Callable[[Sequence[int], Callable[[int, Completion], None]], Sequence[Completion]],
    ) -> tuple[list[Completion], int]:
        """Return the answers to what is asked under these names, and how many were known.

        Args:
            weights: Of the model.
            sampling: Of the answers.
            names: In the cache.
            seeds: Of each answer; none if they are greedy.
            run: Answers some, given by place, and hands each out by its place among those.
        """
        cache = self.cache
        if cache is None:
            return list(run(range(len(names)), lambda index, completion: None)), 0
        key = cache.candidate(weights, sampling)
        known = cache.known(key, names, seeds)
        missing = [place for place in range(len(names)) if place not in known]

        def keep(index: int, completion: Completion) -> None:
            place = missing[index]
            cache.keep(key, names[place], completion, seeds[place] if seeds else None)

        try:
            new = run(missing, keep)
        finally:  # what was answered before an interruption is kept
            cache.flush()
        everything = {**known, **dict(zip(missing, new, strict=True))}
        return [everything[place] for place in range(len(names))], len(known)

    def _engine_answers(
        self, prompts: list[str], sampling: Sampling, finished: Finished, seeds: list[int]
    ) -> list[Completion]:
        if not seeds:
            return self.backend.generate(prompts, sampling, finished)
        return self.backend.generate(prompts, sampling, finished, seeds)
