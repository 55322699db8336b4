"""Licences of parents, as their model cards name them, and what follows for a merge."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ....errors import SpecError
from ....objectives.checkpoints.hub import card_folder

# What names of licences contain where modified models may not be shared.
_NO_DERIVATIVES = re.compile(r"[-_ ]nd(?![a-z])")
# Where a model card holds its metadata, as Hugging Face reads it.
_METADATA = re.compile(r"\s*---\n(.*?)\n---[ \t]*(?:\n|$)", flags=re.DOTALL)


def licence_of(directory: Path) -> str | None:
    """Return the licence that a model's card names, e.g. `apache-2.0`; None if it names none."""
    named = _named(_metadata(directory).get("license"))
    return named[0] if len(named) == 1 else None


def terms_of(directory: Path) -> str | None:
    """Return all licences that a model's card names, those that the hub does not know too."""
    content = _metadata(directory)
    return ", ".join(_named(content.get("license")) + _named(content.get("license_name"))) or None


def _named(value: object) -> list[str]:
    """Return the names that a key of a card holds: one, or a list."""
    values = value if isinstance(value, list) else [value]
    return [each.lower() for each in values if isinstance(each, str)]


def _metadata(directory: Path) -> dict[str, Any]:
    try:
        text = (card_folder(directory) / "README.md").read_text(encoding="utf-8", errors="replace")
        found = _METADATA.match(text)
        content = yaml.safe_load(found[1]) if found else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def joined_licence(licences: Sequence[str | None]) -> str | None:
    """Return the licence of a merge of models: the parents' if all name the same one.

    Where they differ it is `other`: a person has to say which terms hold. None if one is unknown.
    """
    if None in licences or not licences:
        return None
    return licences[0] if len(set(licences)) == 1 else "other"


def check_may_be_shared(parents: Sequence[tuple[str, str | None]]) -> None:
    """Check that no parent's licence forbids to share modified models.

    Args:
        parents: Names and licences.

    Raises:
        SpecError: If one does.
    """
    for name, licence in parents:
        if licence and _NO_DERIVATIVES.search(licence):
            raise SpecError(
                f"A merge may not be published where a parent forbids it: {name} is under "
                f"{licence}, which allows no derivatives. Keep the model to yourself, or take "
                "another parent."
            )
