"""One of our engines as a model of lm-evaluation-harness, for `lm_eval.simple_evaluate`."""

import hashlib
from pathlib import Path

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from ..backends.backend import Backend, Completion, Sampling, final_answer
from ..backends.chat import Chat


def harness_text(completion: Completion, sampling: Sampling, chat: Chat, reasoning: bool) -> str:
    """Return an answer as the harness's own models return it: no special tokens, no stop text.

    Without the reasoning, an answer that was cut inside it is empty.
    """
    text = completion.text if reasoning else final_answer(completion) or ""
    if text != completion.text:
        text = text.lstrip()
    for token in chat.tokenizer.all_special_tokens:
        text = text.replace(token, "")
    return str(postprocess_generated_text(text, list(sampling.stop), None))


class HarnessLM(LM):  # type: ignore[misc]
    """One of our engines, with the weights it has now, as a model of the harness.

    Example::

        backend.apply(plan.group_weights(params))
        lm_eval.simple_evaluate(HarnessLM(backend, base), tasks=["gsm8k_cot_zeroshot"])

    Args:
        backend: Loaded.
        base: Directory of the base.
        max_new_tokens: Where a task does not say.
        reasoning: Whether metrics see the reasoning before `</think>`.
        chat: How a study's candidates are asked. Defaults to None: by the base's template.
    """

    def __init__(
        self,
        backend: Backend,
        base: Path,
        max_new_tokens: int = 256,
        reasoning: bool = True,
        chat: Chat | None = None,
    ) -> None:
        super().__init__()
        self._backend, self._chat = backend, chat or Chat(base)
        self._max_new_tokens, self._reasoning = max_new_tokens, reasoning

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answer requests greedily; the answers to one kind of request are generated together."""
        groups: dict[Sampling, list[int]] = {}
        for place, request in enumerate(requests):
            groups.setdefault(self._sampling_of(request), []).append(place)
        texts: dict[int, str] = {}
        for sampling, places in groups.items():
            prompts = [requests[place].args[0] for place in places]
            for place, completion in zip(
                places, self._backend.generate(prompts, sampling), strict=True
            ):
                texts[place] = harness_text(completion, sampling, self._chat, self._reasoning)
        return [texts[place] for place in range(len(requests))]

    def _sampling_of(self, request: Instance) -> Sampling:
        chosen = normalize_gen_kwargs(request.args[1], self._max_new_tokens)
        stop = handle_stop_sequences(chosen["until"], eos=None)
        return Sampling(chosen["max_gen_toks"], tuple(text for text in stop if text), chat=False)

    @property
    def tokenizer_name(self) -> str:
        """A name for the harness's cache of prompts."""
        template = str(self._chat.tokenizer.chat_template)
        return hashlib.sha256(template.encode()).hexdigest()[:16]

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the base's chat template."""
        return self._chat.tokenizer.chat_template or ""

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as one text."""
        return self._chat.conversation(chat_history, add_generation_prompt)

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Return how probable continuations are, and whether they are the most probable."""
        found = self._backend.loglikelihood([request.args for request in requests])
        return [(each.total, each.is_greedy) for each in found]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Return how probable whole texts are."""
        found = self._backend.loglikelihood([(None, request.args[0]) for request in requests])
        return [each.total for each in found]
