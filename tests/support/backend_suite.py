"""What every backend must do: with any models, and with the demo pair in float32.

A test module makes a fixture `backend`, loaded, and derives from `BackendSuite`, or from
`SwapSuite` with a fixture `plan` of the models' own.
"""

import pytest

from mergefront.errors import EvaluationError
from mergefront.examples.demo import BASE, EXPERT
from mergefront.objectives.checkpoints import Checkpoint, is_tied
from mergefront.objectives.evaluation import Backend, Completion, Models, Sampling
from mergefront.objectives.evaluation.backends.chat import Chat
from mergefront.objectives.merging import MergePlan, MergeSettings

PROMPTS = ["9a*3b*7?", "4a-4b*2c+4d+0e+0?", "cig?", "1a+1b+1?", "7a*7b*7c*7?"]
LONG = Sampling(48)
MODELS = Models(BASE, (EXPERT,), "float32", MergeSettings())
PLAN = MergePlan(Checkpoint(BASE).layout, MergeSettings(), is_tied(Checkpoint(BASE)))


def become(backend: Backend, weight: float, plan: MergePlan = PLAN) -> float:
    """Make the backend's model a uniform merge."""
    return backend.apply(plan.group_weights(plan.uniform(weight)))


class SwapSuite:
    """Tests that any backend passes with any models; `plan` is theirs."""

    @pytest.fixture
    def plan(self) -> MergePlan:
        return PLAN

    def test_answers_do_not_depend_on_order_or_company(
        self, backend: Backend, plan: MergePlan
    ) -> None:
        become(backend, 0.6, plan)
        together = backend.generate(PROMPTS, LONG)
        alone = [backend.generate([prompt], LONG)[0] for prompt in PROMPTS]
        assert together == alone
        assert backend.generate(PROMPTS[::-1], LONG) == together[::-1]

    def test_every_answer_is_handed_out_as_it_ends(self, backend: Backend) -> None:
        seen: dict[int, Completion] = {}
        answers = backend.generate(PROMPTS, Sampling(4), seen.__setitem__)
        assert [seen[index] for index in range(len(PROMPTS))] == answers

    def test_swaps_return_to_where_they_were(self, backend: Backend, plan: MergePlan) -> None:
        answers, checksums = {}, {}
        for weight in (0.0, 1.0, 0.4):
            assert become(backend, weight, plan) > 0
            answers[weight] = backend.generate(PROMPTS, LONG)
            checksums[weight] = backend.checksum()
        assert len(set(checksums.values())) == 3
        for weight in (1.0, 0.4, 0.0):
            become(backend, weight, plan)
            assert backend.checksum() == checksums[weight]
            assert backend.generate(PROMPTS, LONG) == answers[weight]

    def test_a_prompt_that_cannot_fit_is_an_error(self, backend: Backend) -> None:
        with pytest.raises(EvaluationError, match=r"\d+ positions.*max_new_tokens=1000"):
            backend.generate(["1a+1b+1?"], Sampling(1000))


class BackendSuite(SwapSuite):
    """Tests that any backend passes with the demo pair."""

    def test_base_answers_directly_and_the_stop_token_counts(self, backend: Backend) -> None:
        become(backend, 0.0)
        answers = backend.generate(PROMPTS, LONG)
        assert answers[2] == Completion("ee", 3, "stop")  # two letters and the stop token
        assert [len(answer.text) + 1 for answer in answers] == [a.n_tokens for a in answers]

    def test_expert_reasons_and_special_tokens_stay_in_the_text(self, backend: Backend) -> None:
        become(backend, 1.0)
        answer = backend.generate(["1a+1b+1?"], LONG)[0]
        # 7 tokens a step, 2 think markers, the answer and the stop token: 7 * 2 + 4
        assert answer == Completion("<think>a1+1=2;b2+1=3;</think>3", 18, "stop", 16)

    def test_an_answer_cut_at_the_limit_says_so(self, backend: Backend) -> None:
        become(backend, 1.0)
        answers = backend.generate(["1a+1b+1?", "cig?"], Sampling(5))
        assert answers[0] == Completion("<think>a1+1", 5, "length", 5)

    def test_a_stop_text_ends_an_answer_and_is_its_last_part(self, backend: Backend) -> None:
        become(backend, 1.0)
        answers = backend.generate(["1a+1b+1?", "cig?"], Sampling(48, stop=(";b", "+1=2;b")))
        assert answers[0] == Completion("<think>a1+1=2;b", 9, "stop", 9)
        assert answers[1].finish_reason == "stop"

    def test_complete_texts_are_not_rendered_again(self, backend: Backend) -> None:
        become(backend, 1.0)
        message = backend.generate(["1a+1b+1?"], LONG)
        text = Chat(BASE).conversation([{"role": "user", "content": "1a+1b+1?"}])
        assert backend.generate([text], Sampling(48, chat=False)) == message
        assert all(answer.seconds > 0 for answer in message)

    def test_an_answer_longer_than_the_positions_is_an_error(self, backend: Backend) -> None:
        with pytest.raises(EvaluationError, match=r"128 positions.*max_new_tokens=125"):
            backend.generate(["1a+1b+1?"], Sampling(125))

    def test_texts_are_as_probable_as_continuations_of_nothing(self, backend: Backend) -> None:
        become(backend, 1.0)
        assert 126 <= backend.text_window <= 128  # positions; vLLM reads two fewer
        read = backend.read(PROMPTS)
        compared = backend.loglikelihood([("", prompt) for prompt in PROMPTS])
        assert [reading.n_tokens for reading in read] == [each.n_tokens for each in compared]
        for reading, each in zip(read, compared, strict=True):
            assert reading.total == pytest.approx(each.total, rel=1e-4)
