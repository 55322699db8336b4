"""Parents beside a running engine: copies as its kernels hold them, files read on its device."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ....checkpoints.lora_tensor import LoraTensor
from ....checkpoints.tensor_files import FileTensor
from ....merging import Recipe, Resident
from ..vllm_memory import LEFT_FREE


@dataclass(frozen=True)
class Moved(Resident):
    """A tensor in pinned memory of the host, read in parts onto the model's device.

    Args:
        device: The model's.
    """

    device: torch.device

    def stored(self, start: int, stop: int) -> Tensor:
        """Return a part on the device."""
        return super().stored(start, stop).to(self.device, non_blocking=True)


def fits_device(tensors: Mapping[str, Tensor], n_parents: int) -> bool:
    """Whether copies for all parents together fit beside the running engine."""
    device = next(iter(tensors.values())).device
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return n_parents * size + LEFT_FREE <= free


def keep(tensors: Mapping[str, Tensor], on_device: bool) -> dict[str, Resident]:
    """Copy one parent's tensors: where they are, or into pinned memory of the host."""
    if on_device:
        return {name: Resident(t.detach().clone()) for name, t in tensors.items()}
    return {name: Moved(t.detach().cpu().pin_memory(), t.device) for name, t in tensors.items()}


@dataclass(frozen=True)
class _Read:
    """A tensor of a file, read in parts onto the model's device.

    Args:
        source: Of the file.
        device: The model's.
    """

    source: FileTensor | LoraTensor
    device: torch.device

    @property
    def shape(self) -> torch.Size:
        """Its shape."""
        return self.source.shape

    @property
    def dtype(self) -> torch.dtype:
        """As stored."""
        return self.source.dtype

    def numel(self) -> int:
        """Number of elements."""
        return self.source.numel()

    def read(self, start: int, stop: int) -> Tensor:
        """Return a part on the device as float32."""
        return self.stored(start, stop).float()

    def stored(self, start: int, stop: int) -> Tensor:
        """Return a part on the device, as cast."""
        return self.source.stored(start, stop).to(self.device)

    def load(self) -> Tensor:
        """Return the whole tensor as it is in the file."""
        return self.source.load()


@dataclass(frozen=True)
class DeviceRecipe(Recipe):
    """A recipe whose tensors are merged on a device, in its arithmetic.

    What the loader gives must be what is merged in place, bit for bit, and a GPU rounds otherwise
    than a CPU where it fuses a multiplication and an addition.

    Args:
        device: Where.
    """

    device: torch.device

    def sources(self, name: str) -> list[_Read]:  # type: ignore[override]
        """Return one tensor in all models, to be read onto the device."""
        return [_Read(source, self.device) for source in super().sources(name)]
