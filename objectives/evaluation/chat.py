"""Prompts to token ids and token ids to answers, the same for every engine."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import EvaluationError
from .backend import Completion


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

    def render(self, prompt: str) -> list[int]:
        """Return the token ids of one prompt.

        A rendered chat template holds its own opening tokens, so none are added to it.
        """
        if not self.tokenizer.chat_template:
            return list(self.tokenizer(prompt).input_ids)
        message = [{"role": "user", "content": prompt}]
        text = self.tokenizer.apply_chat_template(
            message, add_generation_prompt=True, tokenize=False
        )
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def completion(self, ids: Sequence[int]) -> Completion:
        """Return the answer that generated tokens are; what follows a stop token is padding."""
        stop = next((i for i, token in enumerate(ids) if token in self.stop_tokens), None)
        text = self.tokenizer.decode(list(ids[:stop]), skip_special_tokens=False)
        if stop is None:
            return Completion(text, len(ids), "length")
        return Completion(text, stop + 1, "stop")


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
