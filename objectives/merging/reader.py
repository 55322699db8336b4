"""Read checkpoints tensor by tensor: safetensors only, memory-mapped, never a pickle."""

import hashlib
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open
from torch import Tensor

from ...errors import SpecError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
# Files that say how prompts become tokens; a change in one changes every measurement.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "added_tokens.json",
)


class Checkpoint:
    """A model directory with safetensors weights.

    Args:
        directory: Holds `config.json` and `model.safetensors`, or its shards and their index.

    Raises:
        SpecError: If a file is missing.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        if not (directory / "config.json").is_file():
            raise SpecError(
                f"A model must be a directory with config.json and safetensors weights, but "
                f"{directory} has no config.json. Correct the path under `models`."
            )
        if not (directory / _SINGLE).is_file() and not (directory / _INDEX).is_file():
            raise SpecError(
                f"A model must have model.safetensors or {_INDEX}, but {directory} has neither. "
                "Convert its weights with `save_pretrained(..., safe_serialization=True)`."
            )

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed `config.json`."""
        return cast(dict[str, Any], json.loads((self.directory / "config.json").read_text()))

    @cached_property
    def layout(self) -> dict[str, str]:
        """Tensor name -> file name, in the order of the files."""
        if (self.directory / _INDEX).is_file():
            index = json.loads((self.directory / _INDEX).read_text())
            return cast(dict[str, str], index["weight_map"])
        with safe_open(self.directory / _SINGLE, "pt") as file:
            return dict.fromkeys(file.keys(), _SINGLE)

    @property
    def files(self) -> list[str]:
        """The weight files, each once, in the order of first use."""
        return list(dict.fromkeys(self.layout.values()))

    def tensors(self, file: str) -> Iterator[tuple[str, Tensor]]:
        """Yield (name, tensor) of one weight file; the data are mapped, not copied."""
        with safe_open(self.directory / file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                yield name, opened.get_tensor(name)

    def tensor(self, name: str) -> Tensor:
        """Return one tensor."""
        with safe_open(self.directory / self.layout[name], "pt") as opened:
            return cast(Tensor, opened.get_tensor(name))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every tensor's shape, from the headers alone."""
        shapes = {}
        for file in self.files:
            with safe_open(self.directory / file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - not a mapping
                    shapes[name] = tuple(opened.get_slice(name).get_shape())
        return shapes

    def weights_hash(self) -> str:
        """Return `sha256:...` over the weight files' names and bytes."""
        paths = [self.directory / file for file in sorted(self.files)]
        with ThreadPoolExecutor(max_workers=4) as pool:
            digests = list(pool.map(_file_hash, paths))
        return _hash_of([f"{p.name} {d}" for p, d in zip(paths, digests, strict=True)])

    def tokenizer_hash(self) -> str:
        """Return `sha256:...` over the tokenizer files and the chat template."""
        present = [self.directory / n for n in TOKENIZER_FILES if (self.directory / n).is_file()]
        return _hash_of([f"{path.name} {_file_hash(path)}" for path in present])


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of(lines: list[str]) -> str:
    return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()


def resolve_model(reference: str, folder: Path) -> Path:
    """Return the directory of a model named in a spec.

    Args:
        reference: A path, absolute or relative to `folder` or the working directory, or a hub
            id such as `Qwen/Qwen3-4B`, looked up in the local cache first.
        folder: The directory of the spec file.

    Raises:
        SpecError: If nothing is found.
    """
    for candidate in (folder / Path(reference).expanduser(), Path(reference)):
        if candidate.is_dir():
            return candidate.resolve()
    if not _HUB_ID.match(reference) or reference.startswith("."):
        raise SpecError(
            f"A model must be a directory or a hub id, but {reference!r} is neither (looked in "
            f"{folder}). Correct the path under `models`."
        )
    return _download(reference)


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:
        raise SpecError(
            f"Model {hub_id!r} is no local directory and could not be fetched from the hub "
            f"({type(error).__name__}). Download it first, or give its path."
        ) from error
