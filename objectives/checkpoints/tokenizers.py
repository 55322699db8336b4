"""Tokenizers, opened with an error that says what is missing."""

from pathlib import Path
from typing import Any

from ...errors import SpecError

# Without any of these, transformers builds an empty tokenizer and says nothing.
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def load_tokenizer(directory: Path) -> Any:
    """Return a model's tokenizer.

    Raises:
        SpecError: If its files are missing or damaged.
    """
    from transformers import AutoTokenizer

    if not any((directory / name).is_file() for name in _FILES):
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
