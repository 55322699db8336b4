"""Checkpoints without their numbers: names, shapes and types of tensors in files with holes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...errors import SpecError
from .reader import DTYPES, find_model

_SMALL_FILES = ["*.json", "*.jinja", "*.txt", "tokenizer.model"]

# A tensor's type, in safetensors' letters, and its shape.
TensorOutline = tuple[str, Sequence[int]]


def write_outline(path: Path, tensors: Mapping[str, TensorOutline]) -> None:
    """Write a safetensors file of full length that takes no room: its numbers are a hole.

    Args:
        path: Of the file.
        tensors: By name.
    """
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + _n_bytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    content = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        file.truncate(8 + len(content) + end)


def _n_bytes(dtype: str, shape: Sequence[int]) -> int:
    size = DTYPES[dtype].itemsize
    for length in shape:
        size *= length
    return size


def outline_model(reference: str, folder: Path, into: Path) -> Path:
    """Return a directory with all of a model but its numbers.

    A model on disk, or complete in the hub's cache, is taken as it is. Of another, the small files
    and the headers of its weights are fetched.

    Args:
        reference: As in a spec: a path, or a hub id.
        folder: The directory of the spec file.
        into: Where to write what is fetched.

    Raises:
        SpecError: If nothing is found.
    """
    if (found := find_model(reference, folder)) is not None:
        return found
    from huggingface_hub import get_safetensors_metadata, snapshot_download

    target = into / reference.replace("/", "--")
    try:
        snapshot_download(reference, allow_patterns=_SMALL_FILES, local_dir=target)
        files = get_safetensors_metadata(reference).files_metadata
    except Exception as error:
        raise SpecError(
            f"Model {reference!r} is no local directory, and neither the hub's cache nor the hub "
            f"has it ({type(error).__name__}). Download it first, or give its path."
        ) from error
    for name, metadata in files.items():
        write_outline(target / name, {n: (t.dtype, t.shape) for n, t in metadata.tensors.items()})
    return target
