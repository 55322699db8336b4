"""Safetensors files: a header, and tensors that are read part by part."""

import json
import os
import weakref
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import SpecError

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
    """Read a file's header: safetensors' own, eight bytes of length and then JSON.

    Raises:
        SpecError: If it is no safetensors file, not all of one, or more than one.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = int.from_bytes(first, "little")
            text = file.read(length) if len(first) == 8 and 8 + length <= size else None
    except OSError as error:
        raise SpecError(
            f"A model's weights must be readable, but {path}: {error.strerror}. Fetch the file."
        ) from error
    content = _parsed(text)
    if content is None:
        raise _no_weights(path, first)
    content.pop("__metadata__", None)
    try:
        entries = sorted(content.items(), key=lambda item: item[1]["data_offsets"])
        owner = _File(path)
        tensors = {n: _file_tensor(owner, 8 + length, n, entry) for n, entry in entries}
    except SpecError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _no_weights(path, first) from None
    _check_filled(path, tensors, 8 + length, size)
    return tensors


def _check_filled(path: Path, tensors: dict[str, FileTensor], end: int, size: int) -> None:
    """Check that tensors follow each other to the file's end: engines read no other file.

    Args:
        path: Of the file.
        tensors: In the order of their places.
        end: Of the header.
        size: Of the file.

    Raises:
        SpecError: If bytes are missing, belong to no tensor, or to two.
    """
    ends = [t.offset + t.numel() * t.dtype.itemsize for t in tensors.values()]
    if max(ends, default=end) > size:
        raise SpecError(f"{path} ends before its last tensor. Fetch the file again.")
    starts = [t.offset for t in tensors.values()]
    if [end, *ends] != [*starts, size]:
        raise SpecError(
            f"The tensors of a safetensors file must fill it, but {path} has bytes that belong to "
            "no tensor, or to two. Fetch the file again."
        )


def _parsed(text: bytes | None) -> dict[str, Any] | None:
    try:
        content = json.loads(text or b"")
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _no_weights(path: Path, first: bytes) -> SpecError:
    if first == b"version ":
        return SpecError(
            f"{path} is a pointer of Git LFS, not the weights. Run `git lfs pull` in its folder."
        )
    return SpecError(
        f"A model's weights must be safetensors, but {path} is none, or cut off. Fetch the file "
        "again."
    )


def _file_tensor(file: _File, start: int, name: str, entry: dict[str, Any]) -> FileTensor:
    dtype = DTYPES.get(entry["dtype"])
    if dtype is None:
        raise SpecError(
            f"Tensors must be stored as one of {', '.join(DTYPES)}, but {name!r} is "
            f"{entry['dtype']} in {file.path}. Dequantize the checkpoint first."
        )
    offset = start + int(entry["data_offsets"][0])
    return FileTensor(file, offset, torch.Size(entry["shape"]), dtype)
