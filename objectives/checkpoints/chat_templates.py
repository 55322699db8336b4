"""Chat templates: what they may be given, and the same text from them on any day."""

import json
import re
from datetime import datetime

from ...errors import EvaluationError

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
