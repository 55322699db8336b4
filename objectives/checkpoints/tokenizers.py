"""Tokenizers, opened with an error that says what is missing."""

import json
from pathlib import Path
from typing import Any

from ...errors import SpecError

# Without any of these, transformers builds an empty tokenizer and says nothing.
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
# How a text becomes tokens, beside the vocabulary itself.
_RULES = ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder", "added_tokens")


def has_tokenizer(directory: Path) -> bool:
    """Whether a directory holds a tokenizer: a model's does, an adapter's may."""
    return any((directory / name).is_file() for name in _FILES)


def load_tokenizer(directory: Path) -> Any:
    """Return a model's tokenizer.

    Raises:
        SpecError: If its files are missing or damaged.
    """
    from transformers import AutoTokenizer

    if not has_tokenizer(directory):
        raise SpecError(
            f"A model needs its tokenizer, but {directory} has none of {', '.join(_FILES)}. Copy "
            "the tokenizer's files there."
        )
    try:
        return AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False, padding_side="left"
        )
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise SpecError(
            f"A model needs its tokenizer, but the one in {directory} cannot be loaded "
            f"({type(error).__name__}: {' '.join(str(error).split()):.120}). Copy its files again."
        ) from error


def rules_of(tokenizer: Any) -> dict[str, str]:
    """Return how a tokenizer splits texts and joins tokens, by part, without its vocabulary.

    Empty for a tokenizer of Python code, whose rules no file holds.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {}
    parts = json.loads(backend.to_str())
    model = {key: value for key, value in (parts["model"] or {}).items() if key != "vocab"}
    return {name: json.dumps({**parts, "model": model}.get(name)) for name in _RULES}
