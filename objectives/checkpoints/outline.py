"""Checkpoints without their numbers: names, shapes and types of tensors in files with holes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from .hub import HubName, download, find_model, named, not_fetched, weight_files
from .lora import is_adapter
from .tensor_files import DTYPES

# A tensor's type, in safetensors' letters, and its shape.
TensorOutline = tuple[str, Sequence[int]]


def write_outline(path: Path, tensors: Mapping[str, TensorOutline]) -> None:
    """Write a safetensors file of full length that takes no room: its numbers are a hole.

    Args:
        path: Of the file; its folder is created.
        tensors: By name.
    """
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + _n_bytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    content = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)  # an index may name files of subfolders
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
    and the headers of its weights are fetched; of an adapter, which is small, everything.

    Args:
        reference: As in a spec: a path, or a hub id.
        folder: The directory of the spec file.
        into: Where to write what is fetched.

    Raises:
        SpecError: If nothing is found.
    """
    if (found := find_model(reference, folder)) is not None:
        return found
    wanted, top = named(reference), into / reference.replace("/", "--")
    try:
        headers = _fetch(wanted, top)
    except Exception as error:
        raise not_fetched(reference, error) from error
    target = top / wanted.folder
    if is_adapter(target):
        return download(reference)
    for name, tensors in headers.items():
        write_outline(target / name, tensors)
    return target


def _fetch(wanted: HubName, top: Path) -> dict[str, dict[str, TensorOutline]]:
    """Fetch a model's small files; return the headers of its weights, none of an adapter's."""
    from huggingface_hub import parse_safetensors_file_metadata

    target = wanted.fetch_small(top) / wanted.folder
    if is_adapter(target):
        return {}
    headers = {
        file: parse_safetensors_file_metadata(
            wanted.name, wanted.path(file), revision=wanted.revision
        )
        for file in weight_files(target)
    }
    return {
        file: {tensor: (info.dtype, info.shape) for tensor, info in header.tensors.items()}
        for file, header in headers.items()
    }
