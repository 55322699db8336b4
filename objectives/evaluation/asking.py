"""Put questions to a model: generate, compare likelihoods or read texts, and keep what it says."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .backends import Backend, Completion, Finished, Sampling
from .backends.backend import as_answer, as_text_answer
from .backends.likelihood import Likelihood, Reading, likelihoods_in
from .cache import AnswerCache
from .metrics import Answer
from .scored_question import ScoredQuestion, with_verdict
from .tasks import Question
from .tasks.judge import verdict

logger = logging.getLogger(__name__)

# Called with the number of questions answered since the last call.
Progress = Callable[[int], None]
# For every group of the merge plan, one number per expert.
Weights = Mapping[str, Sequence[float]]
# How texts are read: nothing is generated.
_READ = Sampling(0, chat=False)
# Characters at the end of what a judge said that are shown.
_SHOWN = 80


@dataclass(frozen=True)
class Interviewer:
    """Asks a model that is in its engine already; what is known is not asked again.

    Args:
        backend: Loaded.
        sampling: Generation settings of questions that have none of their own.
        base: Weights of the base, which judges. Defaults to none: there is nothing to judge.
        cache: Of answers. Defaults to None: all are generated.
    """

    backend: Backend
    sampling: Sampling
    base: Weights = field(default_factory=dict)
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
            answers |= self._judged(weights, questions, given, answers)
            n_cached += n_known
        return answers, n_cached

    def _judged(
        self,
        weights: Weights,
        questions: Mapping[int, ScoredQuestion],
        given: Mapping[int, Sequence[Completion]],
        answers: Mapping[int, Sequence[Answer]],
    ) -> dict[int, list[Answer]]:
        """Return the answers that are judged, with the scores that the base gives them."""
        prompts: dict[Sampling, dict[tuple[int, int], str | None]] = {}
        for place, completions in given.items():
            if (judge := questions[place].judge) is not None:
                of_way = prompts.setdefault(judge.sampling, {})
                for repeat, completion in enumerate(completions):
                    of_way[place, repeat] = judge.prompt(questions[place].question, completion)
        found: dict[int, list[Answer]] = {}
        for sampling, asked in prompts.items():
            unique = list(dict.fromkeys(prompt for prompt in asked.values() if prompt))
            replies = dict(zip(unique, self._replies(weights, unique, sampling), strict=True))
            _warn_of_silence(
                [reply for reply in replies.values() if verdict(reply) is None], unique
            )
            for (place, repeat), prompt in asked.items():
                score = verdict(replies[prompt]) if prompt else None
                found.setdefault(place, []).append(with_verdict(answers[place][repeat], score))
        return found

    def _replies(
        self, weights: Weights, prompts: Sequence[str], sampling: Sampling
    ) -> list[Completion]:
        """Return what the base says; the engine's model is the candidate again at the end."""

        def run(
            left: Sequence[int], keep: Callable[[int, Completion], None]
        ) -> Sequence[Completion]:
            if not left:
                return []
            try:
                self.backend.apply(self.base)
                return self.backend.generate([prompts[i] for i in left], sampling, keep)
            finally:
                self.backend.apply(weights)

        return self._through_cache(self.base, sampling, prompts, [], run)[0]

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


def _warn_of_silence(silent: Sequence[Completion], asked: Sequence[str]) -> None:
    """Say that a judge seldom gives a verdict, and what it says instead: all that counts 0."""
    if asked and len(silent) > len(asked) / 2:
        logger.warning(
            "the judge gave no verdict on %d of %d answers, which count 0; it said e.g. %r. "
            "Change the prompt of `judge` so that it ends in a number or in yes or no",
            len(silent),
            len(asked),
            silent[0].text[-_SHOWN:],
        )
