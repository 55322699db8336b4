"""LoRA experts: adapters in PEFT's format, merged into the base as they are read."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import SpecError
from .reader import Checkpoint
from .tensor_files import FileTensor, parse_header
from .text_files import read_json

_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
# Options of PEFT that change what the adapter means; only their plain values are understood.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
}


@dataclass(frozen=True)
class LoraTensor:
    """A weight plus `scaling * B A`, computed row by row as it is read.

    Args:
        origin: The base's weight, `out x in`.
        a: `r x in`, float32.
        b: `out x r`, float32.
        scaling: `alpha / r`, or `alpha / sqrt(r)` for rank-stabilised adapters.
        cast: As of a file's tensor.
    """

    origin: FileTensor
    a: Tensor
    b: Tensor
    scaling: float
    cast: torch.dtype | None = None

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        return self.origin.shape

    @property
    def dtype(self) -> torch.dtype:
        """As the base stores it."""
        return self.origin.dtype

    def numel(self) -> int:
        """Number of elements."""
        return self.origin.numel()

    def stored(self, start: int, stop: int) -> Tensor:
        """Return a part, added in float32 and rounded once to the base's precision, then cast."""
        width = self.a.shape[1]
        first, last = start // width, -(-stop // width)
        delta = (self.b[first:last] @ self.a).view(-1)[
            start - first * width : stop - first * width
        ]
        merged = (self.origin.read(start, stop) + self.scaling * delta).to(self.dtype)
        return merged if self.cast is None else merged.to(self.cast)

    def read(self, start: int, stop: int) -> Tensor:
        """Return a part as float32."""
        return self.stored(start, stop).float()

    def load(self) -> Tensor:
        """Return the whole tensor."""
        return self.stored(0, self.numel()).view(self.shape)


class LoraCheckpoint(Checkpoint):
    """An adapter on a base, read as if it were a checkpoint of its own.

    Args:
        directory: Holds `adapter_config.json` and `adapter_model.safetensors`.
        base: What it is added to.

    Raises:
        SpecError: If a file is missing, the adapter uses an option that is not understood, or it
            changes a tensor that the base does not have.
    """

    def __init__(self, directory: Path, base: Checkpoint) -> None:
        super().__init__(base.directory)
        self.directory, self._base = directory, base
        settings = _read_settings(directory)
        rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
        self._scaling = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        self._pairs = dict(_pairs(directory))
        unknown = sorted(self._pairs.keys() - base.layout.keys())
        if unknown:
            raise SpecError(
                f"An adapter must change tensors of the base, but {unknown[0]!r} of {directory} "
                f"is not in {base.directory}. Give the base that it was trained on."
            )

    @property
    def changed(self) -> list[str]:
        """Names of the tensors that the adapter changes."""
        return sorted(self._pairs)

    def tensor(self, name: str) -> FileTensor | LoraTensor:  # type: ignore[override]
        """Return one tensor, with the adapter added where it has one."""
        origin = self._base.tensor(name)
        if name not in self._pairs:
            return origin
        a, b = self._pairs[name]
        return LoraTensor(origin, a, b, self._scaling)

    @property
    def paths(self) -> list[Path]:
        """Every file that decides the weights."""
        own = [self.directory / name for name in (_CONFIG, ADAPTER_WEIGHTS)]
        return [*self._base.paths, *(path.resolve() for path in own)]

    def weights_hash(self) -> str:
        """Return a hash over the base and the adapter."""
        digest = Checkpoint.hash_files(
            [self.directory / _CONFIG, self.directory / ADAPTER_WEIGHTS]
        )
        return Checkpoint.hash_lines([self._base.weights_hash(), digest])


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter instead of a model."""
    return (directory / _CONFIG).is_file()


def _read_settings(directory: Path) -> dict[str, Any]:
    settings = read_json(directory / _CONFIG)
    if not (directory / ADAPTER_WEIGHTS).is_file():
        raise SpecError(
            f"An adapter must have {ADAPTER_WEIGHTS}, but {directory} has none. Save it with "
            "`save_pretrained(..., safe_serialization=True)`."
        )
    for key, plain in _PLAIN.items():
        if settings.get(key) not in plain:
            raise SpecError(
                f"A LoRA expert must have {key} = {plain[0]!r}, but {directory} has "
                f"{settings[key]!r}. Merge the adapter with PEFT and give the result's path."
            )
    return settings


def _pairs(directory: Path) -> Iterator[tuple[str, tuple[Tensor, Tensor]]]:
    """Yield (name of the weight, (A, B))."""
    tensors = parse_header(directory / ADAPTER_WEIGHTS)
    for name, tensor in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            pair = tensors.get(f"{module}.lora_B.weight")
            if pair is None:
                raise SpecError(
                    f"An adapter's matrices come in pairs, but {module} has no lora_B."
                )
            target = module.removeprefix(_PREFIX) + ".weight"
            yield target, (tensor.load().float(), pair.load().float())


def with_cast(source: FileTensor | LoraTensor, dtype: torch.dtype) -> FileTensor | LoraTensor:
    """Return the same tensor, cast to another precision when it is read."""
    return replace(source, cast=dtype)
