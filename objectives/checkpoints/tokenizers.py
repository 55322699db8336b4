"""Tokenizers, opened with an error that says what is missing, and their chat templates."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from ...errors import EvaluationError, SpecError

# Without any of these, transformers builds an empty tokenizer and says nothing.
_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
# How a text becomes tokens, beside the vocabulary itself.
_RULES = ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder", "added_tokens")
# What transformers gives every template.
_GIVEN = {
    *("messages", "add_generation_prompt", "raise_exception", "strftime_now", "tools"),
    *("documents", "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"),
    "mask_token",
}
# The date that a template is told: prompts of one study must not change at midnight.
_TODAY = datetime(2025, 1, 1)
_DATED = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
# Marks answers for training; it is transformers' own and says nothing here.
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


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


def variables_of(template: str) -> set[str]:
    """Return the variables of a template that transformers does not give it.

    Raises:
        EvaluationError: If it is no template.
    """
    import jinja2
    from jinja2 import meta

    environment = jinja2.Environment(extensions=["jinja2.ext.loopcontrols"], autoescape=True)
    try:
        parsed = environment.parse(_GENERATION.sub("", template))
        return meta.find_undeclared_variables(parsed) - _GIVEN
    except (jinja2.TemplateError, RecursionError) as error:
        raise broken(error) from error


def broken(error: Exception) -> EvaluationError:
    """Return what is said of a template that fails."""
    reason = " ".join(str(error).split())
    return EvaluationError(
        f"The chat template must render a conversation, but fails with "
        f"{type(error).__name__}: {reason:.200}. Correct it, or choose another by "
        "`models.chat_template`."
    )


def dateless(template: str) -> str:
    """Return a chat template that says the same on any day.

    Raises:
        EvaluationError: If it asks for the date in a way that cannot be seen through.
    """
    pinned = _DATED.sub(lambda found: json.dumps(_TODAY.strftime(found[2])), template)
    if "strftime_now(" in pinned.replace(" ", ""):
        raise EvaluationError(
            "A chat template must render the same prompt on any day, but this one asks for the "
            "date by `strftime_now` with a format of its own making. Write the date into a copy "
            "and name that by `models.chat_template`."
        )
    return pinned
