"""Write a merge as a checkpoint, part by part, with the base's shards."""

import errno
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path, PurePath

import torch
from torch import Tensor

from ..checkpoints.reader import INDEX, tokenizer_files
from ..checkpoints.tensor_files import DTYPE_NAMES
from ..checkpoints.tensors import tensor_table
from .derived import linear_modules
from .merger import Merger, ParentTensors, check_finite
from .plan import Weights
from .precision import Format, outline, quantization_config, stored
from .precision.storing import FLOAT8, Outline
from .recipe import Recipe
from .sinks import copied
from .sources import Cut
from .threads import one_thread

_COPIED_FILES = (
    "generation_config.json",
    # How multimodal models are given images, sound and video.
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)
_CODE = "auto_map"
_NAMES = DTYPE_NAMES | FLOAT8


@dataclass(frozen=True)
class _Rule:
    """How a tensor is merged and stored.

    Args:
        weights: One number per expert, or those of each piece.
        density: Share of its task vectors that is kept.
        form: The format that it is rounded to; None if it is not.
    """

    weights: Weights | Cut
    density: float = 1.0
    form: Format | None = None


def write_checkpoint(recipe: Recipe, groups: Mapping[str, Sequence[float]], out: Path) -> None:
    """Write the merged model with the base's shards, tokenizer and configuration.

    Elementwise operators need the memory of a chunk, others that of a tensor; so do tensors that
    are rounded to few bits, which are stored as compressed-tensors stores them.

    Args:
        recipe: The sources and the rule of every tensor.
        groups: The weights of every search variable, one number per expert.
        out: The directory; created.

    Raises:
        LayoutError: As `stream` does. What was written by then is not a checkpoint: its
            configuration comes last.
    """
    out.mkdir(parents=True, exist_ok=True)
    recipe, groups = recipe.at(groups)
    weights, plan = recipe.plan.tensor_weights(groups), recipe.plan
    # What no running model has is not merged: it stays the base's.
    rest = dict.fromkeys(recipe.base.layout, _Rule(()))
    rules = rest | {
        name: _Rule(row, plan.density_of(name, groups), plan.format_of(name, groups))
        for name, row in weights.items()
    }
    merger = plan.settings.merger()
    places = _places(recipe.base.files)
    with one_thread(), torch.no_grad():
        shards = ((file, out / place) for file, place in places.items())
        total = sum(_write_shard(recipe, merger, rules, *shard) for shard in shards)
    _write_index(recipe, rules, places, total, out)
    _copy_files(recipe.base.directory, out)
    _write_config(recipe, rules, out)


def _copy_files(base: Path, out: Path) -> None:
    """Copy what says how the base is asked and how it answers."""
    for name in (*tokenizer_files(base), *_COPIED_FILES):
        if (base / name).is_file():
            (out / name).parent.mkdir(exist_ok=True)
            if name.endswith("_config.json"):
                (out / name).write_bytes(_without_code((base / name).read_bytes()))
            else:
                shutil.copyfile(base / name, out / name)


def _without_code(data: bytes) -> bytes:
    """Return a JSON file without its `auto_map`; one that has none as it is.

    It names Python files beside the base, which no merge was measured with and no export holds.
    """
    try:
        content = json.loads(data)
    except ValueError:
        return data
    if not isinstance(content, dict) or content.pop(_CODE, None) is None:
        return data
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()


def _places(files: Sequence[str]) -> dict[str, str]:
    """Return what each of the base's files is called in the export, by its name in the index.

    An index may name files of subfolders, or outside the model's folder: those are the base's own,
    and an export writes nothing but its own folder.
    """
    names = [PurePath(file).name for file in files]
    if len(set(names)) < len(names):
        names = [f"model-{i:05}-of-{len(names):05}.safetensors" for i in range(1, len(names) + 1)]
    return dict(zip(files, names, strict=True))


def _write_shard(
    recipe: Recipe, merger: Merger, rules: Mapping[str, _Rule], file: str, path: Path
) -> int:
    """Write one file, every part as soon as it is merged; return the bytes of its tensors."""
    names = recipe.base.names(file)
    header, n_bytes = _header(recipe, rules, names)
    with path.open("wb", buffering=0) as out:
        out.write(header)
        for name in names:
            for part in _parts(recipe, merger, name, rules[name]):
                _write_all(out, part)
        written = out.tell()
    if written != len(header) + n_bytes:
        raise OSError(errno.EIO, f"{written} of {len(header) + n_bytes} bytes written", str(path))
    return n_bytes


def _write_all(out: RawIOBase, part: Tensor) -> None:
    """Write a part; the system takes two gigabytes at a time, and says how much it took."""
    rest = memoryview(part.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    while rest:
        rest = rest[out.write(rest) or 0 :]


def _parts(recipe: Recipe, merger: Merger, name: str, rule: _Rule) -> Iterator[Tensor]:
    """Yield a tensor's bytes in order: its own, or those that stand for it in few bits."""
    sources = recipe.sources(name)
    if not sources[0].dtype.is_floating_point:
        yield copied(name, sources).view(-1)
        return
    inputs, dtype = ParentTensors(name, sources[0], sources[1:]), recipe.dtype_of(name)
    if rule.form is not None:
        whole = torch.empty(sources[0].shape, dtype=dtype)
        merger.merge(inputs, rule.weights, whole, rule.density)
        check_finite(name, whole)
        yield from stored(name, whole, rule.form).values()
        return
    for _, part in merger.parts(inputs, rule.weights, rule.density):
        rounded = part.to(dtype)
        check_finite(name, rounded)
        yield rounded


def _outline(recipe: Recipe, rules: Mapping[str, _Rule], name: str) -> Outline:
    """Return the tensors that stand for one of the base's: itself, or those of few bits."""
    shape, dtype, form = recipe.base.tensor(name).shape, recipe.dtype_of(name), rules[name].form
    return {name: (dtype, tuple(shape))} if form is None else outline(name, shape, dtype, form)


def _header(recipe: Recipe, rules: Mapping[str, _Rule], names: Sequence[str]) -> tuple[bytes, int]:
    """Return a safetensors header: eight bytes of length, JSON padded to eight, and data size."""
    content: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    tensors = {n: t for name in names for n, t in _outline(recipe, rules, name).items()}
    for name, (dtype, shape) in tensors.items():
        end = offset + math.prod(shape) * dtype.itemsize
        entry = {"dtype": _NAMES[dtype], "shape": list(shape)}
        content[name] = entry | {"data_offsets": [offset, end]}
        offset = end
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, offset


def _write_index(
    recipe: Recipe,
    rules: Mapping[str, _Rule],
    places: Mapping[str, str],
    total: int,
    out: Path,
) -> None:
    if (recipe.base.directory / INDEX).is_file():
        layout = recipe.base.layout.items()
        where = {n: places[file] for base, file in layout for n in _outline(recipe, rules, base)}
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (out / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _write_config(recipe: Recipe, rules: Mapping[str, _Rule], out: Path) -> None:
    config = dict(recipe.base.config)
    config.pop("torch_dtype", None)  # its name before transformers 5
    config.pop(_CODE, None)
    config["dtype"] = str(recipe.dtype).removeprefix("torch.")
    if any(rule.form for rule in rules.values()):
        config["quantization_config"] = quantization_config(_formats(recipe, rules))
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _formats(recipe: Recipe, rules: Mapping[str, _Rule]) -> dict[str, tuple[Format, int] | None]:
    """Return the format of every linear layer by its module, and the width of its rows."""
    linear = linear_modules(tensor_table(recipe.base))
    found = {module: (rules[name].form, name) for name, module in linear.items()}
    return {
        module: None if form is None else (form, recipe.base.tensor(name).shape[1])
        for module, (form, name) in found.items()
    }
