"""Text and JSON files, read with an error that names the file and what to do."""

import json
from pathlib import Path
from typing import Any

from ...errors import SpecError

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_POINTER = b"version https://git-lfs"
# What a model's folder is read for.
_READ = (".json", ".safetensors", ".jinja", ".model", ".txt")

# Where chat templates beside the one that is named `default` lie.
CHAT_TEMPLATES = "additional_chat_templates"


def read_text(path: Path, what: str) -> str:
    """Return a file's text: UTF-8, or UTF-16 with its byte-order mark; no mark is kept.

    Args:
        path: Of the file.
        what: It is, for messages: "A spec".

    Raises:
        SpecError: If it cannot be read, has another encoding, or is a pointer of Git LFS.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_POINTER):
            raise SpecError(
                f"{what} must be fetched whole, but {path} is a pointer of Git LFS. Run `git lfs "
                "pull` in its folder."
            )
        return data.decode("utf-16" if data.startswith(_UTF16) else "utf-8-sig")
    except OSError as error:
        raise SpecError(f"{what} must be readable, but {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SpecError(
            f"{what} must be UTF-8 text, but line {line} of {path} has byte "
            f"0x{data[error.start]:02x}. Save it as UTF-8, e.g. by `iconv -f latin1 -t utf-8`."
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object that a model's file holds.

    Raises:
        SpecError: If it cannot be read, or holds no object.
    """
    text = read_text(path, "A model's file")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise SpecError(
            f"{path} must be JSON, but is not: {reason:.120}. Fetch it again."
        ) from error
    if not isinstance(content, dict):
        raise SpecError(f"{path} must hold a JSON object, but holds {content!r:.40}.")
    return content


def check_links(directory: Path) -> None:
    """Check that no file of a model is a link to one that is gone, as a cleared cache leaves them.

    What is gone would not be missed everywhere: stop tokens, for one, would be others.

    Raises:
        SpecError: If one is.
    """
    if not directory.is_dir():
        return
    for path in sorted([*directory.iterdir(), *(directory / CHAT_TEMPLATES).glob("*")]):
        if path.suffix in _READ and path.is_symlink() and not path.exists():
            raise SpecError(
                f"A model's files must be there, but {path} is a link to {path.readlink()}, which "
                "is gone. Fetch or copy the model again."
            )
