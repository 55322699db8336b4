"""Prompts to token ids and token ids to answers, the same for every engine."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....errors import EvaluationError
from .backend import Completion, Sampling

THINK, END_THINK = "<think>", "</think>"
# Tokens decoded to look for a stop text, beyond one a character of it.
_MARGIN = 8


class Chat:
    """The base's tokenizer, chat template and stop tokens.

    Args:
        directory: Of the base.

    Raises:
        EvaluationError: If the model names no stop token.
    """

    def __init__(self, directory: Path) -> None:
        from transformers import AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(directory, padding_side="left")
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.stop_tokens = _stop_tokens(directory)

    def render(self, prompt: str, chat: bool = True) -> list[int]:
        """Return the token ids of one prompt.

        A rendered chat template holds its own opening tokens, so none are added to it.

        Args:
            prompt: A message, or a complete text if not `chat`.
            chat: Whether the chat template is applied, if there is one.
        """
        if not (chat and self.tokenizer.chat_template):
            opening = getattr(self.tokenizer, "bos_token", None)
            add = not (opening and prompt.startswith(opening))
            return list(self.tokenizer(prompt, add_special_tokens=add).input_ids)
        text = self.conversation([{"role": "user", "content": prompt}])
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def conversation(
        self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Return messages as one text; without a generation prompt the last one stays open."""
        text: str = self.tokenizer.apply_chat_template(
            list(messages),
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
            tokenize=False,
        )
        return text

    def is_over(self, ids: Sequence[int], stop: Sequence[str] = ()) -> bool:
        """Whether an answer ends with its last token."""
        if ids[-1] in self.stop_tokens:
            return True
        if not stop:
            return False
        tail = self.tokenizer.decode(list(ids[-max(map(len, stop)) - _MARGIN :]))
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
        n_thought = self._n_think_tokens(list(ids[:n_tokens]), text, prompt)
        return Completion(text, n_tokens, "stop" if stopped else "length", n_thought, seconds)

    def _n_think_tokens(self, ids: Sequence[int], text: str, prompt: Sequence[int]) -> int:
        """Count the tokens up to the last end of reasoning; all, if it never ended."""
        if END_THINK in text:
            marker = self.tokenizer.convert_tokens_to_ids(END_THINK)
            if marker in ids:
                return len(ids) - list(ids)[::-1].index(marker)
            return len(self.tokenizer(text[: text.rindex(END_THINK)] + END_THINK).input_ids)
        opening = self.tokenizer.decode(list(prompt[-_MARGIN:]))
        opened = THINK in opening and END_THINK not in opening
        return len(ids) if opened or THINK in text else 0


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


def _stop_tokens(directory: Path) -> frozenset[int]:
    """Return the ids that end an answer: the generation config's, else the model config's."""
    from transformers import AutoConfig, GenerationConfig

    configured = None
    if (directory / "generation_config.json").is_file():
        configured = GenerationConfig.from_pretrained(directory).eos_token_id
    if configured is None:
        configured = AutoConfig.from_pretrained(directory).get_text_config().eos_token_id
    if configured is None:
        raise EvaluationError(
            "A model must name its stop token, but neither generation_config.json nor config.json "
            "has eos_token_id. Add it to the base's generation_config.json."
        )
    return frozenset(configured if isinstance(configured, Iterable) else [configured])
