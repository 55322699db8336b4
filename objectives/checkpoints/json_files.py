"""JSON files of models, read with an error that names the file."""

import json
from pathlib import Path
from typing import Any

from ...errors import SpecError


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a file holds; a byte-order mark at its start does not matter.

    Raises:
        SpecError: If it cannot be read, or holds no object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SpecError(
            f"A model's files must be readable, but {path}: {error.strerror}."
        ) from error
    except (ValueError, RecursionError) as error:
        pointer = path.stat().st_size < 200 and "git-lfs" in path.read_text(errors="replace")
        way = "It is a pointer of Git LFS: run `git lfs pull`." if pointer else "Fetch it again."
        reason = str(error).split(chr(10))[0]
        raise SpecError(f"{path} must be JSON, but is not: {reason:.120}. {way}") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path} must hold a JSON object, but holds {content!r:.40}.")
    return content
