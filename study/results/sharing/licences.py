"""Licences of parents, as their model cards name them, and what follows for a merge."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from ....errors import SpecError
from ....objectives.checkpoints.hub import card_folder

# What Hugging Face's names of licences contain where modified models may not be shared.
_NO_DERIVATIVES = "-nd"


def licence_of(directory: Path) -> str | None:
    """Return the licence that a model's card names, e.g. `apache-2.0`; None if it names none."""
    try:
        text = (card_folder(directory) / "README.md").read_text(encoding="utf-8", errors="replace")
        _, metadata, _ = text.split("---\n", 2)
        content = yaml.safe_load(metadata)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    found = content.get("license") if isinstance(content, dict) else None
    return str(found).lower() if isinstance(found, str) else None


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
        if licence and _NO_DERIVATIVES in licence:
            raise SpecError(
                f"A merge may not be published where a parent forbids it: {name} is under "
                f"{licence}, which allows no derivatives. Keep the model to yourself, or take "
                "another parent."
            )
