"""Find the models that a spec names: on this machine, in the hub's cache, on the hub."""

import re
from pathlib import Path

from ...errors import SpecError
from .adapter_settings import ADAPTER_WEIGHTS
from .lora import is_adapter
from .reader import Checkpoint

_HUB_ID = re.compile(r"^([\w.-]+/[\w.-]+)(?:@([\w./-]+))?$")
_SNAPSHOT = re.compile(r"/models--([\w.-]+?)--([\w.-]+)/snapshots/([0-9a-f]{40})$")
# What is fetched of a model; never its pickles. Its card names the licence.
SMALL_FILES = ["*.json", "*.jinja", "*.txt", "tokenizer.model", "README.md"]
_FILES = ["*.safetensors", *SMALL_FILES]


def resolve_model(reference: str, folder: Path) -> Path:
    """Return the directory of a model named in a spec.

    Args:
        reference: A path, absolute or relative to `folder` or the working directory, or a hub
            id such as `Qwen/Qwen3-4B`, perhaps with a branch, tag or commit: `ORG/NAME@REVISION`.
            What the hub's cache holds of it is not fetched again.
        folder: The directory of the spec file.

    Raises:
        SpecError: If nothing is found.
    """
    if (found := _find_directory(reference, folder)) is not None:
        return found
    return download(reference)


def find_model(reference: str, folder: Path) -> Path | None:
    """Return the directory of a model that is on this machine; None for one that is not.

    Args:
        reference: See `resolve_model`.
        folder: The directory of the spec file.

    Raises:
        SpecError: If it can be no model.
    """
    if (found := _find_directory(reference, folder)) is not None:
        return found
    from huggingface_hub import snapshot_download

    try:
        name, revision = hub_name(reference)
        cached = snapshot_download(
            name, revision=revision, allow_patterns=_FILES, local_files_only=True
        )
        complete = _is_complete(Path(cached))
    except Exception:
        return None
    return Path(cached) if complete else None


def _is_complete(directory: Path) -> bool:
    if is_adapter(directory):
        return (directory / ADAPTER_WEIGHTS).is_file()
    return all(path.is_file() for path in Checkpoint(directory).paths)


def _find_directory(reference: str, folder: Path) -> Path | None:
    try:
        places = (folder / Path(reference).expanduser(), Path(reference))
        found = next((place for place in places if place.is_dir()), None)
    except (OSError, RuntimeError, ValueError) as error:  # no such user, too long, not readable
        raise SpecError(
            f"A model must be a directory or a hub id, but {reference!r:.200} cannot be looked up "
            f"({error!s:.80}). Correct the path under `models`."
        ) from error
    if found is not None:
        return found.resolve()
    if not _HUB_ID.match(reference) or reference.startswith("."):
        raise SpecError(
            f"A model must be a directory or a hub id, but {reference!r} is neither (looked in "
            f"{folder}). Correct the path under `models`."
        )
    return None


def hub_name(reference: str) -> tuple[str, str | None]:
    """Return the model and the revision that a hub id names; None for the newest."""
    name, _, revision = reference.partition("@")
    return name, revision or None


def public_name(directory: Path) -> str | None:
    """Return `org/name@commit` for a directory in the hub's cache; None for any other."""
    found = _SNAPSHOT.search(directory.as_posix())
    return f"{found[1]}/{found[2]}@{found[3]}" if found else None


def download(hub_id: str) -> Path:
    """Fetch a model into the hub's cache, and return its directory.

    Raises:
        SpecError: If it is neither there nor to be had.
    """
    from huggingface_hub import snapshot_download

    try:
        name, revision = hub_name(hub_id)
        return Path(snapshot_download(name, revision=revision, allow_patterns=_FILES))
    except Exception as error:
        raise not_fetched(hub_id, error) from error


def not_fetched(hub_id: str, error: Exception) -> SpecError:
    """Return what to say of a model that the hub did not give."""
    from huggingface_hub.errors import GatedRepoError

    if isinstance(error, GatedRepoError):
        return SpecError(
            f"Model {hub_id!r} is gated on the hub. Accept its terms there, and set HF_TOKEN or "
            "log in with `hf auth login`."
        )
    return SpecError(
        f"Model {hub_id!r} is no local directory and could not be fetched from the hub "
        f"({type(error).__name__}). Download it first, or give its path."
    )
