"""Prompts to token ids and token ids to answers, the same for every engine."""

import difflib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....errors import EvaluationError
from ...checkpoints.configs import stop_tokens as stop_tokens_of
from ...checkpoints.tokenizers import broken, dateless, load_tokenizer, variables_of
from .backend import ChatSettings, Completion, Conversation, Models, Sampling, final_answer
from .reasoning import Reasoning, answer_start, opening_of

# Tokens decoded to look for a stop text, beyond one a byte of it.
_MARGIN = 8
# Tokens at a prompt's end that may hold a marker of reasoning and what a template adds to it.
_OPENING = 64
_MESSAGE = "0"
_EARLIER = "what was said before"


class Chat:
    """How parents' merges are asked, by the base's tokenizer, and where their answers end.

    Args:
        directory: Of the base.
        experts: Their directories: merges may stop and reason as they do.
        reasoning: How it is told from the final answer. Defaults to None: `Reasoning()`.
        stop_tokens: Ids that end an answer. Defaults to (): those of all parents.
        template: Source of the chat template. Defaults to None: the base's.
        chat: What it is given beside the question. Defaults to None: nothing.

    Raises:
        EvaluationError: If the template knows no such variable.
    """

    def __init__(
        self,
        directory: Path,
        experts: Sequence[Path] = (),
        reasoning: Reasoning | None = None,
        stop_tokens: Sequence[int] = (),
        template: str | None = None,
        chat: ChatSettings | None = None,
    ) -> None:
        self.tokenizer: Any = load_tokenizer(directory)
        if template is not None:
            self.tokenizer.chat_template = template
        own = self.tokenizer.chat_template
        if isinstance(own, dict):  # several: questions without tools are asked by this one
            own = own.get("default", own)
        if isinstance(own, str):
            self.tokenizer.chat_template = dateless(own)
        self._settings = chat or ChatSettings()
        _check_variables(self.tokenizer.chat_template, self._settings)
        self._given_stops, self._parents = frozenset(stop_tokens), (directory, *experts)
        self._reasoning = reasoning or Reasoning()
        self._cut_is_reasoning = self._reasoning.cut_is_reasoning([directory, *experts])

    @classmethod
    def of(cls, models: Models) -> "Chat":
        """Return how these parents' merges are asked and answer.

        Raises:
            EvaluationError: If no parent names a stop token.
        """
        chat = cls(
            models.base,
            models.experts,
            models.reasoning,
            models.stop_tokens,
            models.chat_template,
            models.chat,
        )
        _ = chat.stop_tokens  # what has none is refused before it is asked anything
        return chat

    @cached_property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end an answer.

        Raises:
            EvaluationError: If no parent names one.
        """
        return self._given_stops or _stop_tokens(self._parents)

    def render(self, prompt: str | Conversation, chat: bool = True) -> list[int]:
        """Return the token ids of one prompt.

        A rendered chat template holds its own opening tokens, so none are added to it.

        Args:
            prompt: A message, a conversation, or a complete text if not `chat`.
            chat: Whether the chat template is applied, if there is one.
        """
        if isinstance(prompt, str) and not (chat and self.tokenizer.chat_template):
            opening = getattr(self.tokenizer, "bos_token", None)
            add = not (opening and prompt.startswith(opening))
            return list(self.tokenizer(prompt, add_special_tokens=add).input_ids)
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        text = self.conversation(messages)
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    @property
    def remembers(self) -> bool:
        """Whether prompts hold what was said before: some templates write the last message."""
        if not self.tokenizer.chat_template:
            return False
        told = [_MESSAGE, _EARLIER, _MESSAGE]
        roles = ("user", "assistant", "user")
        pairs = zip(roles, told, strict=True)
        return _EARLIER in self.conversation([{"role": r, "content": text} for r, text in pairs])

    def conversation(self, messages: Conversation, add_generation_prompt: bool = True) -> str:
        """Return messages as one text; without a generation prompt the last one stays open.

        Raises:
            EvaluationError: If the template fails.
        """
        try:
            text: str = self.tokenizer.apply_chat_template(
                self._opened(messages),
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                tokenize=False,
                **self._settings.kwargs,
            )
        except Exception as error:  # a template may raise whatever it likes
            raise broken(error) from error
        return text

    def _opened(self, messages: Conversation) -> list[Mapping[str, str]]:
        """Return messages with the system's first; one that is there follows in it."""
        system = self._settings.system
        if system is None:
            return list(messages)
        first, rest = {"role": "system", "content": system}, list(messages)
        if rest and rest[0]["role"] == "system":
            first["content"] = f"{system}\n\n{rest.pop(0)['content']}"
        return [first, *rest]

    @property
    def filler(self) -> int:
        """Id of what stands before a shorter prompt and behind a finished answer."""
        named = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id)
        known = [int(one) for one in named if one is not None]
        return known[0] if known else min(self.stop_tokens)

    def padded(self, rendered: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return prompts that end together, and the mask of their tokens."""
        width = max(map(len, rendered))
        rows = [(width - len(prompt), list(prompt)) for prompt in rendered]
        ids = torch.tensor([[self.filler] * gap + prompt for gap, prompt in rows])
        return ids, torch.tensor([[0] * gap + [1] * len(prompt) for gap, prompt in rows])

    @staticmethod
    def tail_length(stop: Sequence[str]) -> int:
        """Return how many tokens at an answer's end may hold a stop text and its beginning."""
        return max((len(text.encode()) for text in stop), default=0) + _MARGIN

    def is_over(self, ids: Sequence[int], stop: Sequence[str] = ()) -> bool:
        """Whether an answer ends with its last token."""
        if ids[-1] in self.stop_tokens:
            return True
        if not stop:
            return False
        tail = self.tokenizer.decode(list(ids[-self.tail_length(stop) :]))
        return any(text in tail for text in stop)

    def completion(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        prompt: Sequence[int] = (),
        seconds: float = 0.0,
    ) -> Completion:
        """Return the answer that generated tokens are; what follows a stop token is padding.

        Args:
            ids: Generated.
            sampling: How.
            prompt: Token ids; a template may open the reasoning.
            seconds: That it took.
        """
        end = next((i for i, token in enumerate(ids) if token in self.stop_tokens), None)
        text = self.tokenizer.decode(list(ids[:end]), skip_special_tokens=False)
        n_tokens = len(ids) if end is None else end + 1
        stopped = end is not None or any(stop in text for stop in sampling.stop)
        made = Completion(
            text,
            n_tokens,
            "stop" if stopped else "length",
            seconds=seconds,
            unclosed=end is None and self._is_unclosed(prompt, stopped),
            markers=self._reasoning.markers,
        )
        return replace(made, n_think_tokens=self._n_think_tokens(ids, made))

    def _is_unclosed(self, prompt: Sequence[int], stopped: bool) -> bool:
        """Whether an answer without a stop token and without a marker ended in reasoning."""
        written = self.tokenizer.decode(list(prompt[-_OPENING:]), skip_special_tokens=False)
        opening = opening_of(written, self._reasoning.markers, self._tail)
        return opening == "open" or (opening == "none" and self._cut_is_reasoning and not stopped)

    @cached_property
    def _tail(self) -> str:
        """What the chat template writes behind the last message."""
        if not self.tokenizer.chat_template:
            return ""
        text = self.conversation([{"role": "user", "content": _MESSAGE}])
        return text.rpartition(_MESSAGE)[2]

    def _n_think_tokens(self, ids: Sequence[int], made: Completion) -> int:
        """Count the tokens up to the last end of reasoning; all, if it never ended."""
        if final_answer(made) is None:
            return made.n_tokens
        start = answer_start(made.text, made.markers) or 0
        if start == 0:
            return 0

        def length(n: int) -> int:
            return len(self.tokenizer.decode(list(ids[:n]), skip_special_tokens=False))

        return bisect_left(range(made.n_tokens), start, key=length)


def _check_variables(template: Any, settings: ChatSettings) -> None:
    """Check that a template knows what it is given: it would ignore another word in silence.

    Raises:
        EvaluationError: If it does not, or is no template.
    """
    if settings == ChatSettings():
        return
    if not isinstance(template, str):
        raise EvaluationError(
            "`evaluation.chat` is given to a chat template, but the base has none (or several, "
            "none of them `default`). Name one under `models.chat_template`, or remove it."
        )
    if not settings.kwargs:
        return
    known = variables_of(template)
    unknown = sorted(settings.kwargs.keys() - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise EvaluationError(
            f"`evaluation.chat.kwargs` must be variables of the chat template "
            f"({', '.join(sorted(known)) or 'it has none'}), but got {unknown[0]!r}{hint}"
        )


def check_length(longest_prompt: int, max_new_tokens: int, limit: int) -> None:
    """Check that a prompt and its answer fit the model.

    Raises:
        EvaluationError: If they do not.
    """
    if longest_prompt + max_new_tokens > limit:
        raise EvaluationError(
            f"A prompt and its answer must fit the model's {limit} positions, but the longest "
            f"prompt has {longest_prompt} tokens and max_new_tokens={max_new_tokens}. "
            "Lower evaluation.max_new_tokens or shorten the prompts."
        )


def _stop_tokens(parents: Iterable[Path]) -> frozenset[int]:
    """Return the ids that end an answer of any parent: a merge may answer as each of them does.

    Raises:
        EvaluationError: If no parent has one.
    """
    found = frozenset[int]().union(*map(stop_tokens_of, parents))
    if not found:
        raise EvaluationError(
            "A model must name its stop token, but neither generation_config.json nor config.json "
            "of any parent has eos_token_id. Add it to the base's generation_config.json, or name "
            "it under `models.stop_tokens`."
        )
    return found
