"""Read checkpoints tensor by tensor, part by part: safetensors only, never a pickle."""

import hashlib
import json
import os
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import SpecError

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
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


DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


class _File:
    """A file that is opened when first read, by threads at once too, and closed with its owner."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def descriptor(self) -> int:
        descriptor = os.open(self.path, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor


@dataclass(frozen=True)
class FileTensor:
    """A tensor in a safetensors file.

    Read with `pread` into memory of our own: pages of a mapped file would count as the process's
    memory for as long as the file is open, which is as long as a shard takes to merge.

    Args:
        file: Open for as long as one of its tensors is in use.
        offset: Of the tensor's first byte.
        shape: Its shape.
        dtype: As stored.
        cast: What elements are cast to before anything is computed; None keeps them.
    """

    file: "_File"
    offset: int
    shape: torch.Size
    dtype: torch.dtype
    cast: torch.dtype | None = None

    def numel(self) -> int:
        """Number of elements."""
        return self.shape.numel()

    def read(self, start: int, stop: int) -> Tensor:
        """Return elements `start` to `stop` of the flattened tensor as float32."""
        return self.stored(start, stop).float()

    def stored(self, start: int, stop: int) -> Tensor:
        """Return the same elements as cast."""
        part = self._bytes(start, stop)
        return part if self.cast is None else part.to(self.cast)

    def load(self) -> Tensor:
        """Return the whole tensor as it is in the file."""
        return self._bytes(0, self.numel()).view(self.shape)

    def _bytes(self, start: int, stop: int) -> Tensor:
        part = torch.empty(stop - start, dtype=self.dtype)
        if stop > start:
            buffer = memoryview(part.view(torch.uint8).numpy())  # type: ignore[arg-type]
            offset = self.offset + start * self.dtype.itemsize
            while buffer and (n := os.preadv(self.file.descriptor, [buffer], offset)):
                buffer, offset = buffer[n:], offset + n
            if buffer:
                raise SpecError(
                    f"{self.file.path} ends before its last tensor. Fetch the file again."
                )
        return part


def parse_header(path: Path) -> dict[str, FileTensor]:
    """Read a file's header: safetensors' own, eight bytes of length and then JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        content: dict[str, Any] = json.loads(file.read(length))
    content.pop("__metadata__", None)
    entries = sorted(content.items(), key=lambda item: item[1]["data_offsets"])
    owner = _File(path)
    return {name: _file_tensor(owner, 8 + length, name, entry) for name, entry in entries}


def _file_tensor(file: _File, start: int, name: str, entry: dict[str, Any]) -> FileTensor:
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise SpecError(
            f"Tensors must be stored as one of {', '.join(DTYPES)}, but {name!r} is "
            f"{entry['dtype']} in {file.path}. Dequantize the checkpoint first."
        )
    offset = start + int(entry["data_offsets"][0])
    return FileTensor(file, offset, torch.Size(entry["shape"]), dtype)


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
        return dict.fromkeys(self._headers(_SINGLE), _SINGLE)

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
        """Return `sha256:...` over the tokenizer files and the chat template."""
        present = [self.directory / n for n in TOKENIZER_FILES if (self.directory / n).is_file()]
        return self.hash_lines([f"{path.name} {_file_hash(path)}" for path in present])


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
