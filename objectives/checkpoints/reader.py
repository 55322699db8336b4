"""Read checkpoints tensor by tensor, part by part: safetensors only, never a pickle."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import SpecError
from .adapters.settings import CONFIG
from .tensor_files import FileTensor, parse_header
from .text_files import CHAT_TEMPLATES, check_links, read_json

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Files that say how prompts become tokens; a change in one changes every measurement.
_TOKENIZER_FILES = (
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
        self._parsed: dict[str, dict[str, FileTensor]] = {}
        self.table: Any = None  # see tensors.table, which fills it when first asked
        check_links(directory)
        if not (directory / "config.json").is_file():
            raise SpecError(
                f"A model must be a directory with config.json and safetensors weights, but "
                f"{directory} has no config.json. Correct the path under `models`."
            )
        if not (directory / SINGLE).is_file() and not (directory / INDEX).is_file():
            raise SpecError(
                f"A model must have model.safetensors or {INDEX}, but {directory} has neither. "
                "Convert its weights with `save_pretrained(..., safe_serialization=True)`."
            )
        self._check_one_way()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed `config.json`."""
        return read_json(self.directory / "config.json")

    @cached_property
    def layout(self) -> dict[str, str]:
        """Tensor name -> file name, in the order of the files."""
        if (self.directory / INDEX).is_file():
            return self._checked(read_json(self.directory / INDEX).get("weight_map"))
        return dict.fromkeys(self._headers(SINGLE), SINGLE)

    def _check_one_way(self) -> None:
        """Refuse a file beside shards: transformers reads it, and others the shards."""
        check_one_model(self.directory)
        both = (self.directory / SINGLE).is_file() and (self.directory / INDEX).is_file()
        if both and set(self.layout.values()) != {SINGLE}:
            raise SpecError(
                f"A model must be stored once, but {self.directory} has {SINGLE} and the shards "
                f"of {INDEX}. Remove whichever is stale."
            )

    def _checked(self, weight_map: object) -> dict[str, str]:
        """Return an index that names what is in the files, and nothing else.

        Raises:
            SpecError: At the first file or tensor that is missing on one side.
        """
        path = self.directory / INDEX
        if not isinstance(weight_map, dict) or not weight_map:
            raise SpecError(f"{path} must have a `weight_map` of tensors. Fetch it again.")
        places = {str(name): str(file) for name, file in weight_map.items()}
        for file in dict.fromkeys(places.values()):
            if not (self.directory / file).is_file():
                raise SpecError(
                    f"A model must have all its files, but the shard {file} is missing in "
                    f"{self.directory}. Fetch it again."
                )
            named = {name for name, place in places.items() if place == file}
            if differing := sorted(named ^ self._headers(file).keys()):
                raise SpecError(
                    f"An index must name the tensors of its files, but {differing[0]!r} is only "
                    f"in one of {path} and {file!r}. Fetch the model again."
                )
        return places

    @property
    def files(self) -> list[str]:
        """The weight files, each once, in the order of first use."""
        return list(dict.fromkeys(self.layout.values()))

    @property
    def paths(self) -> list[Path]:
        """Every file that decides the weights."""
        return [(self.directory / file).resolve() for file in sorted(self.files)]

    def names(self, file: str) -> list[str]:
        """Names of one file's tensors, in the order of their bytes."""
        return list(self._headers(file))

    def tensor(self, name: str) -> "FileTensor":
        """Return one tensor, to be read in parts."""
        return self._headers(self.layout[name])[name]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return every tensor's shape, from the headers alone."""
        return {name: tuple(self.tensor(name).shape) for name in self.layout}

    def _headers(self, file: str) -> dict[str, "FileTensor"]:
        if file not in self._parsed:
            self._parsed[file] = parse_header(self.directory / file)
        return self._parsed[file]

    def weights_hash(self) -> str:
        """Return `sha256:...` over the weight files' names and bytes."""
        return self.hash_files([self.directory / file for file in sorted(self.files)])

    @staticmethod
    def hash_files(paths: Sequence[Path]) -> str:
        """Return `sha256:...` over files' names and bytes."""
        with ThreadPoolExecutor(max_workers=4) as pool:
            digests = list(pool.map(_file_hash, paths))
        lines = [f"{path.name} {digest}" for path, digest in zip(paths, digests, strict=True)]
        return Checkpoint.hash_lines(lines)

    @staticmethod
    def hash_lines(lines: Sequence[str]) -> str:
        """Return `sha256:...` over lines."""
        return "sha256:" + hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def tokenizer_hash(self) -> str:
        """Return `sha256:...` over the tokenizer files and the chat templates."""
        names = tokenizer_files(self.directory)
        return self.hash_lines([f"{name} {_file_hash(self.directory / name)}" for name in names])


def tokenizer_files(directory: Path) -> list[str]:
    """Return the files that say how prompts become tokens, those of further templates too."""
    templates = sorted(path.name for path in (directory / CHAT_TEMPLATES).glob("*.jinja"))
    names = (*_TOKENIZER_FILES, *(f"{CHAT_TEMPLATES}/{name}" for name in templates))
    return [name for name in names if (directory / name).is_file()]


def check_one_model(directory: Path) -> None:
    """Refuse an adapter beside whole weights: transformers with PEFT reads the one, others both.

    Raises:
        SpecError: If a directory holds both.
    """
    whole = next((name for name in (SINGLE, INDEX) if (directory / name).is_file()), None)
    if whole is not None and (directory / CONFIG).is_file():
        raise SpecError(
            f"A folder must hold one model, but {directory} has whole weights ({whole}) and an "
            f"adapter ({CONFIG}). Move the files of the one that is not meant to another folder."
        )


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
